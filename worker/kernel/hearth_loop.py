"""One event loop for all cells of a session: what one cell began goes on in the next, and between them.

A cell without `await` does not run within the loop, but the loop passes for running meanwhile: so
`asyncio.create_task` and its like work there as they do in notebooks, and `asyncio.run` works too.
"""

import asyncio
import contextlib
import functools
import threading
from asyncio import base_events, events, runners

# User code may replace what modules hold: keep what is needed after it ran.
_get_running, _set_running, _set_loop = events._get_running_loop, events._set_running_loop, events.set_event_loop
_Thread = threading.Thread
# What a cell has in it that is the first to have to do with an event loop.
_WORDS = ("async", "await", "event_loop", "%run")
_loop = None
# The loop that passes for running, if one does.
_passing = None


class _Loop(asyncio.SelectorEventLoop):
    """The session's."""

    def is_running(self):
        return super().is_running() or _get_running() is self

    def close(self):
        """Programs close the loop that they find when they have done. This one is needed again."""

    def end(self):
        """Closes it."""
        super().close()

    def has_work(self):
        """Whether something is due, or may come without a cell."""
        own = 1  # file, by which threads wake it up
        return bool(self._ready or self._scheduled or len(self._selector.get_map()) > own or asyncio.all_tasks(self))


def current():
    """The session's loop, as usable as at the beginning."""
    global _loop
    if _loop is None or _loop.is_closed():
        _loop = _Loop()
    _loop._stopping = False
    _set_loop(_loop)
    return _loop


def end():
    """Closes the loop; a new one is made when it is needed."""
    global _loop
    loop, _loop = _loop, None
    if loop is not None:
        loop.end()
    _set_loop(None)


def during(code):
    """While a cell runs: the loop passes for running. A session of which no cell has ever had anything to do
    with one, which is most of them, gets none."""
    if _loop is None and not any(word in code for word in _WORDS):
        return contextlib.nullcontext()
    return _passes_for_running()


@contextlib.contextmanager
def _passes_for_running():
    global _passing
    _passing = loop = current()
    _set_running(loop)
    try:
        yield
    finally:
        _passing = None
        _set_running(None)


@contextlib.contextmanager
def _honestly():
    """While a loop is really run."""
    loop = _get_running()
    if loop is None or loop is not _passing:
        yield
        return
    _set_running(None)
    try:
        yield
    finally:
        _set_running(loop)


def _runs_a_loop(function):
    @functools.wraps(function)
    def run(*arguments, **named):
        with _honestly():
            return function(*arguments, **named)

    return run


def install():
    """Has everything that runs a loop do so in cells."""
    for owner, name in (
        (base_events.BaseEventLoop, "run_forever"),
        (base_events.BaseEventLoop, "run_until_complete"),
        (runners.Runner, "run"),
        (runners, "run"),
    ):
        setattr(owner, name, _runs_a_loop(getattr(owner, name)))
    asyncio.run = runners.run


def wait(read):
    """What `read` returns. Meanwhile the loop runs, if it has anything to do."""
    try:
        if _loop is None or _loop.is_closed() or not _loop.has_work():
            return read()
        reader = _Reader(_loop, read)
        reader.start()
    except Exception:
        # No thread can be had, or the loop is broken: then it stands still.
        return read()
    return reader.result()


class _Reader(_Thread):
    """Reads while the loop runs: a task that computes for long makes nobody think that the kernel hangs."""

    def __init__(self, loop, read):
        super().__init__(daemon=True, name="hearth")
        self._loop, self._read = loop, read
        self._has_read, self._request, self._failed = False, None, None

    def run(self):
        try:
            self._request = self._read()
        except BaseException as error:
            self._failed = error
        self._has_read = True
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stop)

    def _stop(self):
        if self._loop is not None:
            self._loop.stop()

    def result(self):
        """Runs the loop until something was read."""
        loop = current()
        while not self._has_read:
            try:
                loop.run_forever()
            except (SystemExit, KeyboardInterrupt):
                # Of the code of a task, which ends with it.
                continue
            except BaseException:
                break
        self.join()
        # What it put there may not have been run: it must not stop the loop later.
        self._loop = None
        if self._failed is not None:
            raise self._failed
        return self._request
