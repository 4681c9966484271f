"""The kernel of a session: cells come in over a socket, what they show goes back.

It runs locked down, with the session's socket and pipes as its only ways out. User code shares this
interpreter and may break everything in it; then the kernel ends, and the worker starts another.
"""

import ctypes
import io
import os
import random
import signal
import socket
import sys

import hearth_frames
import hearth_shell

_exit, _getpid = os._exit, os.getpid
_libc = ctypes.CDLL(None)


def main(shell, descriptor):
    """Serves cells until the worker closes the socket. Never returns."""
    try:
        _serve(shell, descriptor)
    except BaseException:
        _exit(1)
    _exit(0)


def _serve(shell, descriptor):
    kernel = _getpid()
    channel = socket.socket(fileno=descriptor)
    channel.set_inheritable(False)
    reader = channel.makefile("rb", buffering=1 << 16)
    os.register_at_fork(after_in_child=lambda: os.close(descriptor))
    _become_a_session(shell)
    channel.sendall(hearth_frames.encode({"type": "ready"}))
    while True:
        try:
            request = hearth_frames.read(reader)
        except KeyboardInterrupt:
            # An interrupt that came too late for its cell. Reads are whole or not begun: the
            # worker sends nothing while it interrupts.
            continue
        if request is None:
            return
        _cell(shell, channel, request)
        if _getpid() != kernel:
            # The cell forked and both came back: only the first is the session.
            _exit(0)


def _cell(shell, channel, request):
    number = request["id"]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    pid = _getpid()

    def displayed(data):
        if _getpid() == pid:
            _send(channel, {"type": "display", "id": number, "data": data})

    try:
        result, error = hearth_shell.run(shell, request["code"], displayed)
    except KeyboardInterrupt:
        result, error = None, {"name": "KeyboardInterrupt", "message": "", "traceback": "KeyboardInterrupt"}
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _flush()
    if _getpid() == pid:
        _send(channel, {"type": "done", "id": number, "result": result, "error": error})


def _send(channel, frame):
    try:
        channel.sendall(hearth_frames.encode(frame))
    except hearth_frames.TooLong as error:
        why = f"the output is too long for one answer: {error}"
        said = {"name": "OutputTooLong", "message": why, "traceback": f"OutputTooLong: {why}"}
        if frame["type"] == "done":
            frame = {"type": "done", "id": frame["id"], "result": None, "error": said}
            channel.sendall(hearth_frames.encode(frame))


def _flush():
    """Everything that the cell printed is in the pipes before its end is told."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass
    _libc.fflush(None)
    if sys.stdout is not _OUT or sys.stderr is not _ERR:
        # A cell may redirect, but not beyond its own end.
        sys.stdout, sys.stderr = _OUT, _ERR


_OUT = _ERR = None


def _become_a_session(shell):
    """What a fork shares with its siblings is made this session's own."""
    global _OUT, _ERR
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    random.seed()
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(int.from_bytes(os.urandom(4), "little"))
    os.chdir(os.environ["HOME"])
    os.umask(0o022)
    sys.path.insert(0, "")
    sys.argv = [""]
    sys.stdin = open(os.devnull, encoding="utf-8")
    _OUT = sys.stdout = sys.__stdout__ = _stream(1)
    _ERR = sys.stderr = sys.__stderr__ = _stream(2)
    for name in ("boot", "hearth_warm"):
        sys.modules.pop(name, None)
    # An interactive main module has neither file nor spec; multiprocessing's spawn looks.
    main = shell.user_module
    main.__dict__.pop("__file__", None)
    main.__spec__ = None
    sys.modules["__main__"] = main


def _stream(descriptor):
    raw = io.FileIO(descriptor, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw, 1 << 13),
        encoding="utf-8",
        errors="backslashreplace",
        line_buffering=True,
    )
