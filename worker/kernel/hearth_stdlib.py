"""What the standard library is told about a session: nobody answers a debugger, what was printed comes
before what a child prints, tasks are few, and another interpreter does not have what cells define."""

import builtins
import functools
import io
import os
import pickle
import sys

# How many processes and threads a session may have: `still_files.rs`.
_TASKS = "/sys/fs/cgroup/pids.max"
_DEBUGGER = "standard input is not available here, so a debugger cannot be used: print what it would show"


def refuse_input(prompt=""):
    """Instead of waiting for what nobody can type."""
    raise EOFError("standard input is not available here: pass the values in the code instead")


class NoInput(io.TextIOWrapper):
    """Standard input: nobody is there, and to say so is better than an end of file."""

    def _refuse(self, *_):
        refuse_input()

    read = readline = readlines = __iter__ = __next__ = _refuse


def flush():
    """What was printed is on its way before somebody else prints."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass


def install():
    """Tells it."""
    builtins.input = refuse_input
    _refuse_debuggers()
    _start_children()
    _start_threads()
    _refuse_cells_to_other_interpreters()


def _refuse_debuggers():
    import pdb

    interaction, set_trace = pdb.Pdb.interaction, pdb.set_trace

    @functools.wraps(interaction)
    def refused(self, *arguments, **named):
        # One that reads its commands from elsewhere can be used.
        if self.use_rawinput and not self.cmdqueue and isinstance(sys.stdin, NoInput):
            sys.settrace(None)
            raise EOFError(_DEBUGGER)
        return interaction(self, *arguments, **named)

    @functools.wraps(set_trace)
    def refused_at_once(*arguments, **named):
        if isinstance(sys.stdin, NoInput) and not named.get("commands"):
            raise EOFError(_DEBUGGER)
        return set_trace(*arguments, **named)

    def breakpoint_(*arguments, **named):
        # The hook of an isolated interpreter does not look.
        if os.environ.get("PYTHONBREAKPOINT") == "0":
            return None
        if not isinstance(sys.stdin, NoInput):
            return sys.__breakpointhook__(*arguments, **named)
        raise EOFError(_DEBUGGER)

    pdb.Pdb.interaction, pdb.set_trace, sys.breakpointhook = refused, refused_at_once, breakpoint_


def _start_children():
    import multiprocessing.util
    import subprocess

    os.register_at_fork(before=flush)
    for owner, name in (
        (subprocess.Popen, "_execute_child"),
        (multiprocessing.util, "spawnv_passfds"),
        (os, "fork"),
        (os, "forkpty"),
        (os, "system"),
        (os, "posix_spawn"),
        (os, "posix_spawnp"),
    ):
        setattr(owner, name, _starting(owner, getattr(owner, name)))


def _starting(owner, function):
    """A function that starts a process: what was printed comes before what that prints."""

    @functools.wraps(function)
    def starting(*arguments, **named):
        flush()
        try:
            return function(*arguments, **named)
        except BlockingIOError as error:
            # One of these functions may have called another.
            if (why := _no_more_tasks()) is not None and why not in error.strerror:
                error.strerror = f"{error.strerror}: {why}"
                error.args = (error.errno, error.strerror)
            raise

    if owner is os:
        # It is pickled by its name, which is not that of C's function any more.
        starting.__module__ = "os"
    return starting


def _start_threads():
    import threading

    start = threading._start_joinable_thread

    @functools.wraps(start)
    def starting(*arguments, **named):
        try:
            return start(*arguments, **named)
        except RuntimeError as error:
            if (why := _no_more_tasks()) is not None:
                error.args = (f"{error}: {why}",)
            raise

    threading._start_joinable_thread = starting


def _no_more_tasks():
    """Why no process and no thread can be started; None if it is not for their number."""
    try:
        with open(_TASKS) as file:
            most = int(file.read())
        now = sum(map(_threads, filter(str.isdigit, os.listdir("/proc"))))
    except (OSError, ValueError):
        return None
    # Some may have ended meanwhile.
    if now < most - max(8, most // 8):
        return None
    return (
        f"this session may have {most} processes and threads at a time, so end some or start fewer; "
        "whoever runs this service can allow more with `processes` in the pool's limits"
    )


def _threads(process):
    try:
        return len(os.listdir(f"/proc/{process}/task"))
    except OSError:  # it has ended
        return 0


def _refuse_cells_to_other_interpreters():
    """A pool of spawned processes waits for ever for a function that its processes do not have."""
    import concurrent.futures.process
    from multiprocessing import pool, popen_spawn_posix, reduction

    class Pickler(reduction.ForkingPickler):
        def reducer_override(self, thing):
            refuse_what_a_cell_defines(thing)
            return NotImplemented

    def pickled(thing):
        buffer = io.BytesIO()
        Pickler(buffer, pickle.HIGHEST_PROTOCOL).dump(thing)
        return buffer.getbuffer()

    # Both ways to start another interpreter hand over what it shall run with this.
    reduction.dump = lambda thing, file, protocol=None: Pickler(file, protocol).dump(thing)

    setup = pool.Pool._setup_queues

    @functools.wraps(setup)
    def setup_queues(self):
        setup(self)
        if getattr(self, "_ctx", None) is not None and _is_another_interpreter(self._ctx):
            send = self._inqueue._writer.send_bytes
            self._quick_put = lambda task: send(pickled(task))

    pool.Pool._setup_queues = setup_queues

    executor = concurrent.futures.process.ProcessPoolExecutor
    submit = executor.submit

    @functools.wraps(submit)
    def submit_(self, function, /, *arguments, **named):
        if _is_another_interpreter(self._mp_context):
            # `map` wraps what it is given.
            for part in (function, *getattr(function, "args", ())):
                refuse_what_a_cell_defines(part)
        return submit(self, function, *arguments, **named)

    executor.submit = submit_


def _is_another_interpreter(context):
    return context.get_start_method() in ("spawn", "forkserver")


def refuse_what_a_cell_defines(thing):
    """Refuses to pickle a function or class that is known by its name in cells alone."""
    if isinstance(thing, (type, type(refuse_input))) and getattr(thing, "__module__", None) == "__main__":
        raise pickle.PicklingError(
            f"{thing.__qualname__!r} is defined in a cell, and a process that is started by 'spawn' or 'forkserver' "
            "does not have it: use multiprocessing.get_context('fork'), or write it to a file and import it"
        )
