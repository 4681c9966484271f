"""IPython's shell, set up for cells that come from afar: no history file, no colours, no terminal.

What a cell shows goes to a `sink` object with `display(data)`; what it prints goes to the process's
own stdout and stderr.
"""

import base64
import json
import os
import subprocess
import sys
import traceback

from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell

# One output of a cell in characters; a longer text form is cut.
TEXT_LIMIT = 4 * 1024 * 1024


class Sink:
    """Takes the display outputs of the running cell."""

    def __init__(self):
        self.displayed = lambda data: None
        self.result = None


SINK = Sink()


def texts(data):
    """A mime bundle with text values only: binary as base64, JSON types as JSON text."""
    shown = {}
    for mime, content in data.items():
        if isinstance(content, bytes):
            content = base64.b64encode(content).decode("ascii")
        elif not isinstance(content, str):
            try:
                content = json.dumps(content)
            except (TypeError, ValueError):
                continue
        if mime.startswith("image/"):
            content = content.replace("\n", "")
        elif len(content) > TEXT_LIMIT:
            content = content[:TEXT_LIMIT] + "\n[cut: longer than 4 MiB]"
        shown[mime] = content
    return shown


class Results(DisplayHook):
    """Keeps the last expression's value for the answer instead of printing it."""

    def start_displayhook(self):
        pass

    def write_output_prompt(self):
        pass

    def write_format_data(self, format_dict, md_dict=None):
        SINK.result = texts(format_dict)

    def finish_displayhook(self):
        pass


class Displays(DisplayPublisher):
    """Sends display outputs as they happen."""

    def publish(self, data, metadata=None, **_):
        SINK.displayed(texts(data))

    def clear_output(self, wait=False):
        pass


class Shell(InteractiveShell):
    """The shell of a session."""

    error = None

    def init_history(self):
        # The history manager starts a thread and a database; a forked process can keep neither.
        from IPython.core.history import HistoryManager

        self.history_manager = HistoryManager(shell=self, parent=self, enabled=False)

    def enable_gui(self, gui=None):
        pass

    def init_virtualenv(self):
        pass

    def system(self, command):
        """`!command`: its output goes where the cell's goes, in order."""
        sys.stdout.flush()
        sys.stderr.flush()
        command = self.var_expand(command, depth=1)
        code = subprocess.call(command, shell=True, executable="/bin/bash", stdin=subprocess.DEVNULL)
        self.user_ns["_exit_code"] = code

    system_piped = system_raw = system

    def _showtraceback(self, etype, evalue, stb):
        self.error = (etype, evalue, "\n".join(stb) if isinstance(stb, list) else str(stb))

    def showtraceback(self, *args, **kwargs):
        try:
            super().showtraceback(*args, **kwargs)
        except BaseException:
            # The user's own __str__ or __repr__ may fail while it is shown.
            self.error = (*sys.exc_info()[:2], traceback.format_exc())


def _refuse_input(prompt=""):
    raise EOFError("input() is not available here: pass the values in the code instead")


def build():
    """A new shell without any trace of a session."""
    from traitlets.config import Config

    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    config.InteractiveShell.history_length = 0
    config.InteractiveShell.history_load_length = 0
    config.InteractiveShell.cache_size = 1000
    config.InteractiveShell.xmode = "Context"
    config.InteractiveShell.autocall = 0
    shell = Shell.instance(
        config=config, displayhook_class=Results, display_pub_class=Displays, user_module=None
    )
    shell.display_formatter.active_types = shell.display_formatter.format_types
    shell.builtin_trap.activate()
    import builtins

    builtins.input = _refuse_input
    import matplotlib_inline.backend_inline as inline
    from matplotlib_inline.config import InlineBackend

    backend = InlineBackend.instance(parent=shell)
    backend.shell = shell
    inline.configure_inline_support(shell, "module://matplotlib_inline.backend_inline")
    return shell


def describe(error):
    """What is told of an exception: class name, text and plain traceback."""
    kind, value, trace = error
    try:
        message = str(value)
    except BaseException:
        message = "<its text cannot be shown>"
    return {
        "name": getattr(kind, "__name__", "Exception"),
        "message": message[:TEXT_LIMIT],
        "traceback": trace[-TEXT_LIMIT:],
    }


def run(shell, code, displayed):
    """Runs a cell; returns (result bundle or None, error or None)."""
    SINK.displayed, SINK.result, shell.error = displayed, None, None
    try:
        ran = shell.run_cell(code, store_history=True)
        failed = ran.error_before_exec or ran.error_in_exec
    except BaseException as error:  # a KeyboardInterrupt between two of IPython's own steps
        failed = error
        shell.error = (type(error), error, traceback.format_exc())
    if failed is None:
        return SINK.result, None
    error = shell.error or (type(failed), failed, f"{type(failed).__name__}: {failed}")
    return None, describe(error)
