"""IPython's shell, set up for cells that come from afar: no history file, no colours, no terminal.

What a cell shows goes to `SINK`; what it prints goes to the process's own stdout and stderr.
"""

import asyncio
import base64
import contextlib
import functools
import inspect
import io
import json
import os
import subprocess
import sys
import traceback
import warnings

import hearth_loop
import hearth_network
import hearth_stdlib
import hearth_tracebacks
import numpy
import traitlets
from IPython.core.autocall import ExitAutocall
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell

# A text form of an output in bytes. The worker cuts what is longer and says so; what is much longer is
# not worth the way there.
TEXT_LIMIT = 4 * 1024 * 1024
# Forms of one output, and bytes of a mime type. The worker takes no more for an output of the kernel.
MIME_TYPES = 64
MIME_TYPE_BYTES = 255
# Images that are text.
WRITTEN_IMAGES = ("image/svg+xml",)
INLINE = "module://matplotlib_inline.backend_inline"


def _nowhere(*_):
    """Displays of threads between cells belong to no cell."""


class Sink:
    """Takes what the running cell shows."""

    def __init__(self):
        self.begin(_nowhere, _nowhere, _nowhere)

    def begin(self, displayed, cleared, interrupted):
        """For a new cell: takes a display's forms, the number of its name and whether it replaces what has that
        number; what was shown so far is taken back; an interrupt has hit the cell."""
        self.displayed, self.cleared, self.interrupted = displayed, cleared, interrupted
        self.result = None
        # Why the last expression's value cannot be shown.
        self.unshown = None
        # Names by which displays can be replaced, and their numbers.
        self.numbers = {}
        self.has_shown_an_image = False
        self.was_interrupted = False
        # Streams whose next output takes back what was shown so far.
        self.clearing = []

    def end(self):
        """Nothing more belongs to the cell."""
        self._go_on_writing()
        self.displayed = self.cleared = self.interrupted = _nowhere

    def display(self, data, name, update):
        """One display. `name` is None where nothing will replace it."""
        self.clear_if_due()
        number = None
        if name is not None:
            number = self.numbers.setdefault(str(name), len(self.numbers))
        if any(mime.startswith("image/") for mime in data):
            self.has_shown_an_image = True
        self.displayed(data, number, update)

    def clear(self):
        """Takes back what was shown so far."""
        self._go_on_writing()
        hearth_stdlib.flush()
        self.has_shown_an_image = False
        self.cleared()

    def clear_with_the_next(self):
        """Takes it back as soon as there is more to show."""
        self._go_on_writing()
        hearth_stdlib.flush()
        for stream in (sys.stdout, sys.stderr):
            if type(stream) is io.TextIOWrapper:
                stream.write = functools.partial(self._clear_and_write, stream)
                self.clearing.append(stream)

    def clear_if_due(self):
        """Before something is shown."""
        if self.clearing:
            self.clear()

    def _clear_and_write(self, stream, text):
        self.clear_if_due()
        return stream.write(text)

    def _go_on_writing(self):
        while self.clearing:
            self.clearing.pop().__dict__.pop("write", None)


SINK = Sink()


def texts(data):
    """A mime bundle with text values only: binary as base64, JSON types as JSON text."""
    shown = {}
    for mime, content in data.items():
        if not isinstance(mime, str) or len(str.encode(mime, "utf-8", "backslashreplace")) > MIME_TYPE_BYTES:
            continue
        if len(shown) == MIME_TYPES:
            break
        if isinstance(content, bytes):
            content = base64.b64encode(content).decode("ascii")
        elif isinstance(content, str):
            # A subclass, such as of text that escapes itself, may do anything in `replace`.
            content = str.__str__(content)
        else:
            try:
                content = json.dumps(content)
            except (TypeError, ValueError):
                continue
        if mime.startswith("image/"):
            # Of no use if it is cut. Some sources wrap the lines of their base64.
            content = content if mime in WRITTEN_IMAGES else content.replace("\n", "")
        elif len(content) > TEXT_LIMIT:
            # Characters have at least one byte: it is still longer than what is kept.
            content = content[: TEXT_LIMIT + 1]
        shown[mime] = content
    return shown


class Results(DisplayHook):
    """Keeps the last expression's value for the answer instead of printing it."""

    def __call__(self, result=None):
        shown = len(self.shell.shown)
        super().__call__(result)
        if len(self.shell.shown) > shown and "text/plain" not in (SINK.result or ()):
            SINK.unshown, _ = self.shell.shown[-1]

    def compute_format_data(self, result):
        data, metadata = super().compute_format_data(result)
        if isinstance(result, (numpy.number, numpy.bool_)) and "text/plain" in data:
            # `frame.a.sum()` shows as 3, as it does where clients come from, and not as np.int64(3).
            data["text/plain"] = str(result)
        return data, metadata

    def start_displayhook(self):
        pass

    def write_output_prompt(self):
        pass

    def write_format_data(self, format_dict, md_dict=None):
        SINK.clear_if_due()
        SINK.result = texts(format_dict)

    def finish_displayhook(self):
        pass

    def log_output(self, format_dict):
        # For notebooks made of the history: would keep every output in memory.
        pass


class Displays(DisplayPublisher):
    """Sends display outputs as they happen."""

    def publish(self, data, metadata=None, *_, transient=None, update=False, **__):
        SINK.display(texts(data), (transient or {}).get("display_id"), bool(update))

    def clear_output(self, wait=False):
        SINK.clear_with_the_next() if wait else SINK.clear()


class Exit(ExitAutocall):
    """`exit`, `exit()` and `exit(1)`: ends the cell; the session goes on."""

    def __call__(self, *code):
        raise SystemExit(*code)


class FrontEnd:
    """What libraries look for to find out whether somebody sits at a terminal: nobody does."""

    def __init__(self, shell):
        self.shell = shell


class ZMQInteractiveShell(InteractiveShell):
    """The shell of a session. It has the name of ipykernel's, for some libraries ask for nothing else."""

    kernel = traitlets.Any(help="What tells pandas and others that there is no terminal.")

    def __init__(self, **settings):
        # Exceptions of the running cell with their texts, as IPython comes to show them.
        self.shown = []
        super().__init__(**settings)
        self.kernel = FrontEnd(self)
        self.exiter = Exit(self)
        self.loop_runner = self._run_in_loop

    def init_history(self):
        # The history manager starts a thread and a database; a forked process can keep neither.
        from IPython.core.history import HistoryManager

        self.history_manager = HistoryManager(shell=self, parent=self, enabled=False)

    def init_user_ns(self):
        super().init_user_ns()
        # An interactive main module has no spec, but multiprocessing's spawn looks, after `%reset` too.
        self.user_ns["__spec__"] = self.user_ns_hidden["__spec__"] = None
        # Before the first result too, as the display hook has it.
        self.user_ns.update({"_": "", "__": "", "___": ""})

    def enable_gui(self, gui=None):
        pass

    def enable_matplotlib(self, gui=None):
        """`%matplotlib`: nobody has a window or a live widget, so whoever asks for one gets images."""
        try:
            if gui not in ("widget", "ipympl"):
                return super().enable_matplotlib(gui)
        except ImportError:
            # It would hold for whatever is asked for next.
            self.pylab_gui_select = None
        print(f"[%matplotlib {gui}: figures are images here, as with %matplotlib inline]", file=sys.stderr)
        return super().enable_matplotlib("inline")

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

    def init_traceback_handlers(self, custom_exceptions):
        super().init_traceback_handlers(custom_exceptions)
        self.InteractiveTB.__class__ = hearth_tracebacks.Tracebacks

    def _run_in_loop(self, coroutine):
        """A cell with `await`."""
        loop = hearth_loop.current()
        task = loop.create_task(coroutine)
        try:
            return loop.run_until_complete(task)
        except KeyboardInterrupt as interrupt:
            # It hit the loop while the cell waited. Left alone, the cell would go on within the next.
            SINK.was_interrupted = True
            return self._cancelled(loop, task, interrupt)

    def _cancelled(self, loop, task, interrupt):
        for _ in range(3):
            task.cancel()
            try:
                result = loop.run_until_complete(task)
                break
            except KeyboardInterrupt:
                # It does not end by itself, and another interrupt hit the loop.
                continue
        else:
            raise interrupt
        cancelled = result.error_in_exec
        if isinstance(cancelled, asyncio.CancelledError):
            result.error_in_exec = interrupt
            self.shown = [(interrupt if error is cancelled else error, text) for error, text in self.shown]
        return result

    def showtraceback(self, exc_tuple=None, *args, **kwargs):
        try:
            kind, error, trace = self._get_exc_info(exc_tuple)
            SINK.clear_if_due()
            if isinstance(error, KeyboardInterrupt):
                SINK.was_interrupted = True
            if SINK.was_interrupted and isinstance(error, (KeyboardInterrupt, asyncio.CancelledError)):
                with SINK.interrupted():
                    self.shown.append((error, hearth_tracebacks.of_an_interrupt(trace, "KeyboardInterrupt")))
            elif _has_a_group(error):
                # IPython prints these to stderr. The first frame is its own.
                own = trace and trace.tb_next
                self._showtraceback(kind, error, "".join(traceback.format_exception(kind, error, own)))
            else:
                _tell_inspect_of_cells(trace)
                super().showtraceback(exc_tuple, *args, **kwargs)
        except BaseException as failure:
            # The user's own __str__ or __repr__ may fail while it is shown.
            self.shown.append((failure, traceback.format_exc()))

    def show_usage_error(self, exc):
        self._showtraceback(type(exc), exc, [f"UsageError: {exc}"])

    def _showtraceback(self, etype, evalue, stb):
        self.shown.append((evalue, "\n".join(stb) if isinstance(stb, list) else str(stb)))

    # Both are for notebooks made of the history: the one would keep all that is printed in memory,
    # the other would format every traceback a second time.
    def _tee(self, channel):
        return contextlib.nullcontext()

    def _format_exception_for_storage(self, exception, filename=None, running_compiled_code=False):
        return {"ename": "", "evalue": "", "traceback": []}


def _tell_inspect_of_cells(trace):
    """Else it looks for the cells in every loaded module, and a look is enough to make a copy of the
    memory shared with the zygote: 11 MB."""
    for frame, _ in traceback.walk_tb(trace):
        name = frame.f_code.co_filename
        if name.startswith("<ipython-input-"):
            for known in (name, _absolute(name)):
                inspect.modulesbyfile[known] = "__main__"


def _absolute(name):
    try:
        return os.path.abspath(name)
    except FileNotFoundError:  # the working directory is gone
        return name


def _has_a_group(error):
    for _ in range(100):  # an exception may be its own context
        if error is None:
            return False
        if isinstance(error, BaseExceptionGroup):
            return True
        error = error.__context__
    return False


def _finish_figures(manager, inline):
    """Before the figures that a cell did not show are shown at its end."""
    open_ones = manager.get_all_fig_managers()
    if not open_ones or not inline.instance().close_figures:
        return
    if SINK.was_interrupted:
        # Whoever is interrupted has little time, and a figure takes much.
        manager.destroy_all()
        print(f"[{len(open_ones)} unfinished figure(s) not drawn: the execution was interrupted]", file=sys.stderr)
    elif SINK.has_shown_an_image:
        # `xlabel` after `show` opens another figure, which nobody wants to see.
        for one in open_ones:
            if _is_blank(one.canvas.figure):
                manager.destroy(one)


def _is_blank(figure):
    labels = (figure._suptitle, figure._supxlabel, figure._supylabel)
    drawn = (figure.lines, figure.patches, figure.images, figure.legends, figure.artists, figure.subfigs)
    return (
        not any(map(len, drawn))
        and all(text in labels for text in figure.texts)
        and not any(axes.has_data() or len(axes.texts) or len(axes.artists) or len(axes.tables) for axes in figure.axes)
    )


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
    # tqdm, plotly and others look whether there is such a section.
    config.IPKernelApp = Config()
    shell = ZMQInteractiveShell.instance(
        config=config, displayhook_class=Results, display_pub_class=Displays, user_module=None
    )
    shell.display_formatter.active_types = shell.display_formatter.format_types
    shell.builtin_trap.activate()
    hearth_stdlib.install()
    hearth_loop.install()
    hearth_network.install()
    warnings.filterwarnings("ignore", "To exit: use", UserWarning)
    # Before the backend's own, which it adds as soon as it is imported.
    owners = []
    shell.events.register("post_execute", lambda: _finish_figures(*owners))
    from matplotlib._pylab_helpers import Gcf
    from matplotlib_inline.config import InlineBackend

    owners[:] = Gcf, InlineBackend
    from IPython.core.pylabtools import activate_matplotlib
    from matplotlib import pyplot
    from matplotlib_inline.backend_inline import configure_inline_support

    # What the backend does by itself when the shell is there before it is imported.
    activate_matplotlib(INLINE)
    configure_inline_support(shell, INLINE)
    # It would draw every figure once more, before it is drawn as an image and closed.
    pyplot.uninstall_repl_displayhook()
    return shell


# What the class says itself may be anything.
_class_name = type.__dict__["__name__"].__get__


def describe(error, trace):
    """What is told of an exception: class name, text and plain traceback."""
    name = _class_name(type(error))
    try:
        message = str.__str__(str(error))
    except BaseException:
        message = "<its text cannot be shown>"
    return {"name": name, "message": message[:TEXT_LIMIT], "traceback": trace[-TEXT_LIMIT:]}


_REHEARSAL = "import numpy, pandas; pandas.DataFrame({'a': range(9)}).a.sum()"


def rehearse(shell):
    """Runs what a first cell is likely to run, so that the memory that it writes to is copied from the
    zygote's by then. Nothing of it shows."""
    before, hidden = set(shell.user_ns), dict(shell.user_ns_hidden)
    told = run(shell, _REHEARSAL, _nowhere, remember=False)
    for name in set(shell.user_ns) - before:
        del shell.user_ns[name]
    shell.displayhook.flush()
    # What the display hook hid there would pass for the user's own `_`.
    shell.user_ns_hidden.clear()
    shell.user_ns_hidden.update(hidden)
    return told


def run(shell, code, displayed, cleared=_nowhere, interrupted=contextlib.nullcontext, remember=True):
    """Runs a cell; returns (result bundle or None, error or None)."""
    SINK.begin(displayed, cleared, interrupted)
    shell.shown = []
    try:
        with hearth_loop.during(code):
            ran = shell.run_cell(code, store_history=remember)
        failed = ran.error_before_exec or ran.error_in_exec or SINK.unshown
    except BaseException as error:  # a KeyboardInterrupt between two of IPython's own steps
        failed = error
    SINK.end()
    trace = None
    for error, text in shell.shown:
        if error is failed:
            trace = text
        else:
            # Shown without being the cell's end, as by `%tb` or of a figure that cannot be drawn.
            with contextlib.suppress(Exception):
                print(text, file=sys.stderr)
    if failed is None:
        return SINK.result, None
    if trace is None:
        trace = "".join(traceback.format_exception(failed))
    return None, describe(failed, hearth_network.ended(failed, trace))
