"""The kernel of a session: cells come in over a socket, what they show goes back.

It runs locked down, with the session's socket and pipes as its only ways out. User code shares this
interpreter and may break everything in it; then the kernel ends, and the worker starts another.
"""

import base64
import contextlib
import ctypes
import fcntl
import io
import multiprocessing.process
import os
import random
import select
import signal
import socket
import stat
import struct
import sys
import termios
import threading
import time
import traceback

import hearth_command
import hearth_frames
import hearth_loop
import hearth_packages
import hearth_share
import hearth_shell
import hearth_stdlib
import hearth_variables

# User code may replace what modules hold: keep what is needed after it ran.
_alarm, _signal, _SIGINT = signal.alarm, signal.signal, signal.SIGINT
_exit, _getpid, _get_ident = os._exit, os.getpid, threading.get_ident
_close, _fstat, _ioctl = os.close, os.fstat, fcntl.ioctl
_chdir, _getcwd, _write = os.chdir, os.getcwd, os.write
_now, _sleep, _wait = time.monotonic, time.sleep, hearth_loop.wait
_encode, _read, _TooLong = hearth_frames.encode, hearth_frames.read, hearth_frames.TooLong
_run, _describe = hearth_shell.run, hearth_shell.describe
_save, _load, _ALL = hearth_variables.save, hearth_variables.load, hearth_variables.ALL
_to_base64, _from_base64 = base64.b64encode, base64.b64decode
_ENVIRONMENT = os.environ
_fflush = ctypes.CDLL(None).fflush
# Where the session's files are, and where its code begins.
_DIRECTORY = "/mnt/data"
# Whoever joins a kernel for a session that waits sends the first cell within this time.
_AT_ONCE_SECONDS = 0.02
# So long the worker is given to read what was printed before something is taken back.
_READ_SECONDS = 1
_LOOK_AGAIN_SECONDS = 0.0002


def main(shell, descriptor):
    """Serves cells until the worker closes the socket. Never returns."""
    try:
        _serve(shell, descriptor)
    except BaseException:
        _exit(1)
    _exit(0)


def _serve(shell, descriptor):
    kernel = _getpid()
    channel = Channel(descriptor)
    os.register_at_fork(after_in_child=channel.leave)
    _become_a_session(shell)
    channel.answer({"type": "ready"})
    if not channel.has_request_within(_AT_ONCE_SECONDS):
        # Nobody waits: this is a spare.
        _rehearse(shell)
    answers = {
        "execute": _cell,
        "command": _command,
        "snapshot": _snapshot,
        "restore": _restore,
        "probe": _probe,
    }
    while (request := _wait(channel.read)) is not None:
        failed = answers[request["type"]](shell, channel, request)
        if _getpid() != kernel:
            # The cell forked and both came back: only the first is the session.
            _exit(1 if failed else 0)


def _rehearse(shell):
    """Does all that a first cell does, but for the socket."""
    before = _set({})
    result, error = hearth_shell.rehearse(shell)
    _restore_environment(before)
    _settle()
    _encode({"type": "done", "id": 0, "result": result, "error": error})


class Channel:
    """The socket to the worker."""

    def __init__(self, descriptor):
        self._socket = socket.socket(fileno=descriptor)
        self._socket.set_inheritable(False)
        self._stream = self._socket.makefile("rb", buffering=1 << 16)
        self._detach, self._identity = self._socket.detach, _identity(descriptor)
        # Threads may display while the cell goes on, and come too late: nothing follows its end.
        self._sending = threading.Lock()
        self._cell = None

    def leave(self):
        """Closes the socket in a child. In the child's own children, and where the descriptor has been
        replaced, the number belongs to the user's code and stays."""
        descriptor = self._detach()
        if descriptor >= 0 and _identity(descriptor) == self._identity:
            _close(descriptor)

    def has_request_within(self, seconds):
        """Whether the first request, or the end, comes so soon."""
        return bool(select.select([self._socket], [], [], seconds)[0])

    def read(self):
        """The next request, or None at the end."""
        return _read(self._stream)

    def begin(self, number):
        """From now on a cell's displays are sent."""
        self._cell = number

    def tell(self, frame):
        """Sends what the cell that runs has to say before its end; what another says belongs to no cell."""
        whole = _whole(frame)
        with self._sending:
            if self._cell == frame["id"]:
                self._socket.sendall(whole)

    def wait_until_read(self):
        """Waits until what was sent has been taken by the worker."""
        _until_read(self._socket, termios.TIOCOUTQ)

    def answer(self, frame):
        """Sends what nothing may follow before the next request."""
        whole = _whole(frame)
        with self._sending:
            self._cell = None
            self._socket.sendall(whole)


def _until_read(file, question):
    """Waits until a file holds nothing that the worker has not taken yet; not for long."""
    until, unread = _now() + _READ_SECONDS, struct.Struct("i")
    try:
        if stat.S_ISREG(_fstat(file if type(file) is int else file.fileno()).st_mode):
            # Code may have put a file there, which holds what was written for ever.
            return
        while unread.unpack(_ioctl(file, question, bytes(unread.size)))[0] and _now() < until:
            _sleep(_LOOK_AGAIN_SECONDS)
    except OSError:
        # It is something else by now.
        pass


def _whole(frame):
    """The bytes of a frame, or of what is said instead of one that is too long."""
    try:
        return _encode(frame)
    except _TooLong as error:
        return _encode(_instead(frame, f"the output is too long for one answer: {error}"))


def _identity(descriptor):
    """What a descriptor refers to; None when it is closed."""
    try:
        status = _fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _instead(frame, why):
    said = f"OutputTooLong: {why}"
    if frame["type"] in ("display", "update"):
        return {**frame, "data": {"text/plain": said}}
    return {**frame, "result": None, "error": {"name": "OutputTooLong", "message": why, "traceback": said}}


def _cell(shell, channel, request):
    number, kernel, thread = request["id"], _getpid(), _get_ident()
    channel.begin(number)

    def tell(frame):
        if _getpid() != kernel:
            return
        if _get_ident() != thread:
            channel.tell(frame)
            return
        # An interrupt in the middle of a frame would break all frames after it: let it wait.
        interrupts = []
        handler = _signal(_SIGINT, lambda *_: interrupts.append(True))
        try:
            channel.tell(frame)
        finally:
            _signal(_SIGINT, handler)
        if interrupts:
            signal.raise_signal(_SIGINT)

    def displayed(data, name=None, update=False):
        frame = {"type": "update" if update else "display", "id": number, "data": data}
        tell(frame if name is None else {**frame, "name": name})

    def cleared():
        if _getpid() != kernel:
            return
        # What was printed before is read before, and what is printed from now on after it.
        for pipe in (1, 2):
            _until_read(pipe, termios.FIONREAD)
        tell({"type": "clear", "id": number})
        channel.wait_until_read()

    @contextlib.contextmanager
    def interrupted():
        """The interrupt has been obeyed; what remains is to tell so, and needs no other."""
        if _getpid() != kernel or _get_ident() != thread:
            yield
            return
        handler = _signal(_SIGINT, signal.SIG_IGN)
        try:
            channel.tell({"type": "interrupted", "id": number})
            yield
        finally:
            _signal(_SIGINT, handler)

    _leave_a_removed_directory()
    before = _set(request.get("environment", {}))
    try:
        _signal(_SIGINT, signal.default_int_handler)
        result, error = _run(shell, request["code"], displayed, cleared, interrupted)
        _signal(_SIGINT, signal.SIG_IGN)
    except BaseException as failure:
        # An interrupt after the last of the cell's own code or before the first; or the shell is
        # broken, and this cell not the one to blame.
        _signal(_SIGINT, signal.SIG_IGN)
        result, error = None, _describe(failure, traceback.format_exc())
    # An alarm that the cell forgot would go off in here.
    _alarm(0)
    _restore_environment(before)
    _settle()
    if _getpid() == kernel:
        channel.answer({"type": "done", "id": number, "result": result, "error": error})
    elif error:
        os.write(2, error["traceback"].encode("utf-8", "backslashreplace") + b"\n")
    return error


def _leave_a_removed_directory():
    """Nothing can be read, written or started in a directory that is gone."""
    try:
        _getcwd()
        return
    except FileNotFoundError:
        pass
    try:
        _chdir(now := _DIRECTORY)
    except OSError:  # the session has closed it to itself
        _chdir(now := "/")
    _write(2, f"The working directory was removed: from now on it is {now}\n".encode())


def _set(environment):
    """Sets variables for a cell; what they were before."""
    before = {name: _ENVIRONMENT.get(name) for name in environment}
    _ENVIRONMENT.update(environment)
    return before


def _restore_environment(before):
    for name, value in before.items():
        if value is None:
            _ENVIRONMENT.pop(name, None)
        else:
            _ENVIRONMENT[name] = value


def _command(shell, channel, request):
    status = hearth_command.run(request["command"], request.get("environment", {}))
    channel.answer({"type": "exited", "id": request["id"], "status": status})


def _probe(shell, channel, request):
    """Who reads it waits for requests, which is all that the worker wants to know."""


def _snapshot(shell, channel, request):
    """Tells the variables. What pickles them may be the user's own code, and what it prints belongs to no
    cell."""
    kernel = _getpid()
    try:
        data, lost = _save(shell, request["max_bytes"], request["within_ms"] / 1000)
    except BaseException:
        data, lost = b"", _ALL
    _settle_between_cells()
    if _getpid() == kernel:
        channel.answer({"type": "snapshot", "variables": _to_base64(data).decode("ascii"), "lost": lost})


def _restore(shell, channel, request):
    """Takes variables over from another kernel. As with them, the user's own code may run."""
    kernel = _getpid()
    try:
        lost = _load(shell, _from_base64(request["variables"]), request["within_ms"] / 1000)
    except BaseException:
        lost = _ALL
    _settle_between_cells()
    if _getpid() == kernel:
        channel.answer({"type": "restored", "lost": lost})


def _settle_between_cells():
    _signal(_SIGINT, signal.SIG_IGN)
    _alarm(0)
    _settle()


_OUT = _ERR = None


def _settle():
    """Everything that the cell printed is in the pipes before its end is told, and the next cell
    prints there too: a cell may redirect or close, but not beyond its own end."""
    for stream in (sys.__dict__.get("stdout"), sys.__dict__.get("stderr"), _OUT, _ERR):
        try:
            stream.flush()
        except BaseException:
            pass
    _fflush(None)
    # First away with what the cell put there: with it may go, and close, what it was wrapped around.
    sys.stdout = sys.stderr = None
    _use_streams(_OUT if _usable(_OUT) else _stream(1), _ERR if _usable(_ERR) else _stream(2))


def _usable(stream):
    try:
        return not stream.closed
    except ValueError:  # detached
        return False


def _use_streams(out, err):
    global _OUT, _ERR
    _OUT = sys.stdout = sys.__stdout__ = out
    _ERR = sys.stderr = sys.__stderr__ = err


def _become_a_session(shell):
    """What a fork shares with its siblings is made this session's own."""
    _signal(_SIGINT, signal.SIG_IGN)
    # The zygote ignores them; programs of a session expect what every program does.
    for number in (signal.SIGHUP, signal.SIGTERM):
        _signal(number, signal.SIG_DFL)
    random.seed()
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(int.from_bytes(os.urandom(4), "little"))
    os.umask(0o022)
    _begin_in_the_sessions_directory(shell)
    hearth_packages.begin()
    hearth_share.take()
    sys.argv = [""]
    sys.stdin = sys.__stdin__ = hearth_stdlib.NoInput(io.FileIO(0, closefd=False), encoding="utf-8")
    _use_streams(_stream(1), _stream(2))
    for name in ("boot", "hearth_warm"):
        sys.modules.pop(name, None)
    sys.modules["__main__"] = shell.user_module


def _begin_in_the_sessions_directory(shell):
    """Where the join has put this process. Modules there are found last: whatever a file is named, it takes
    the place of none that a library or this kernel imports."""
    directory = os.getcwd()
    shell.history_manager.dir_hist[:] = [directory]
    # Both remember where the zygote was, and processes that are spawned look for modules there.
    shell.starting_dir = multiprocessing.process.ORIGINAL_DIR = directory
    sys.path[:] = [*(entry for entry in sys.path if entry), ""]


def _stream(descriptor):
    raw = io.FileIO(descriptor, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw, 1 << 13),
        encoding="utf-8",
        errors="backslashreplace",
        line_buffering=True,
    )
