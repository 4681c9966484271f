"""Shell commands: each in a process of its own, whose output goes where the output of cells goes.

What lasts from one to the next is files, and processes that a command left in the background.
"""

import os
import signal
import subprocess

_SHELL = "/bin/bash"
_DIRECTORY = "/mnt/data"
# Longest single argument of a program on Linux (MAX_ARG_STRLEN), with the zero behind it.
_ARGUMENT_BYTES = 128 * 1024
# The worker gives an interrupted kernel twice as long.
_GRACE_SECONDS = 1
_CANNOT_START = 126


def run(command, environment):
    """Runs a command to its end, in the environment and with these variables beside. Returns its exit status as a shell tells it: of one that a signal
    ended, 128 and the signal's number. An interrupt ends the command and what it left behind."""
    group = _Group()
    handlers = [
        (number, signal.signal(number, handler))
        for number, handler in ((signal.SIGALRM, group.kill), (signal.SIGINT, group.interrupt))
    ]
    try:
        return _run(command.encode("utf-8", "surrogateescape"), environment, group)
    except (OSError, ValueError) as error:
        os.write(2, f"{_SHELL}: {getattr(error, 'strerror', None) or error}\n".encode())
        return _CANNOT_START
    finally:
        signal.alarm(0)
        for number, handler in handlers:
            signal.signal(number, handler)


class _Group:
    """The processes of a command: those that did not leave its process group."""

    def __init__(self):
        self.leader = None
        self.interrupted = False

    def interrupt(self, *_):
        if self.interrupted:
            # Another one gives it no more time.
            return
        self.interrupted = True
        self._tell(signal.SIGINT)
        signal.alarm(_GRACE_SECONDS)

    def kill(self, *_):
        self._tell(signal.SIGKILL)

    def _tell(self, number):
        # Before it is known an interrupt only leaves its mark.
        if self.leader is not None:
            try:
                os.killpg(self.leader, number)
            except ProcessLookupError:
                pass


def _run(script, environment, group):
    with _start(script, environment) as shell:
        group.leader = shell.pid
        if group.interrupted:
            group.kill()
        code = shell.wait()
        if group.interrupted:
            group.kill()
    return 128 - code if code < 0 else code


def _start(script, environment):
    """A long script cannot be an argument, so the shell reads it as a file."""
    if len(script) < _ARGUMENT_BYTES:
        return _popen([_SHELL, "-c", script], environment, ())
    file = os.memfd_create("command")
    try:
        unwritten = memoryview(script)
        while unwritten:
            unwritten = unwritten[os.write(file, unwritten) :]
        return _popen([_SHELL, f"/proc/self/fd/{file}"], environment, (file,))
    finally:
        os.close(file)


def _popen(arguments, environment, files):
    return subprocess.Popen(
        arguments,
        stdin=subprocess.DEVNULL,
        cwd=_DIRECTORY,
        # The kernel's own backend of matplotlib shows figures in cells only.
        env={**os.environ, "MPLBACKEND": "Agg", **environment},
        pass_fds=files,
        start_new_session=True,
    )
