"""A session for tests: a forked kernel, and the worker's side of its socket and pipes."""

import base64
import fcntl
import os
import pathlib
import select
import signal
import socket
import struct
import sys
import termios
import unittest
from dataclasses import dataclass, field

KERNEL = "/opt/hearth"

sys.path.insert(0, KERNEL)
import hearth_frames  # noqa: E402
import hearth_kernel  # noqa: E402
import hearth_network  # noqa: E402
import hearth_warm  # noqa: E402

sys.path.remove(KERNEL)
SHELL = hearth_warm.warm()
PATIENCE = 20  # seconds of silence that count as a hang


@dataclass
class Cell:
    """What one cell left behind."""

    result: dict | None = None
    error: dict | None = None
    displays: list = field(default_factory=list)
    # Other frames before the end, and displays that have a name.
    said: list = field(default_factory=list)
    stdout: str = ""
    stderr: str = ""
    status: int | None = None

    @property
    def text(self):
        """The result as text."""
        return self.result and self.result["text/plain"]


@dataclass
class Saved:
    """What a kernel told of its variables."""

    data: bytes
    lost: list


class Session:
    """A kernel in a process of its own."""

    def __init__(self):
        self.socket, theirs = socket.socketpair()
        patience = struct.pack("ll", PATIENCE, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, patience)
        self.stdout, out = os.pipe()
        self.stderr, err = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            # Out of the way first: the numbers of the ends may be those that they shall get.
            ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 100) for end in (out, err, theirs.fileno())]
            for number, end in enumerate(ends, 1):
                os.dup2(end, number)
            os.closerange(4, 200)
            os.chdir("/mnt/data")
            hearth_kernel.main(SHELL, 3)
        theirs.close()
        os.close(out)
        os.close(err)
        self.cells = 0
        assert hearth_frames.read(self) == {"type": "ready"}

    def read(self, count):
        """Bytes of frames, none beyond: `select` must see the next frame."""
        return self.socket.recv(count, socket.MSG_WAITALL)

    def begin(self, code, environment=None):
        """Sends a cell."""
        self.cells += 1
        frame = {"type": "execute", "id": self.cells, "code": code}
        if environment:
            frame["environment"] = environment
        self.socket.sendall(hearth_frames.encode(frame))

    def command(self, frame):
        """Sends a shell command."""
        self.cells += 1
        self.socket.sendall(hearth_frames.encode({**frame, "id": self.cells}))

    def wait_until_asleep(self):
        """Returns when the kernel's main thread waits for something."""
        while pathlib.Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] != "S":
            os.sched_yield()

    def wait_until_ready_for_a_cell(self):
        """Returns when the kernel waits for a frame without end, as a spare does."""
        while "unix_stream" not in pathlib.Path(f"/proc/{self.pid}/wchan").read_text():
            os.sched_yield()

    def says_within(self, seconds):
        """Whether the kernel has sent something by then."""
        return bool(select.select([self.socket], [], [], seconds)[0])

    def interrupt(self):
        """What the worker does to a cell that takes too long."""
        os.kill(self.pid, signal.SIGINT)

    def end(self, until=None):
        """Waits for the end of the cell, or until it has printed a text."""
        cell = Cell()
        captured = {self.stdout: b"", self.stderr: b""}
        while True:
            ready, _, _ = select.select([self.socket, *captured], [], [], PATIENCE)
            assert ready, f"the kernel hangs; so far {captured}"
            for pipe in captured:
                if pipe in ready:
                    captured[pipe] += os.read(pipe, 1 << 16)
            if until is not None and until.encode() in captured[self.stdout]:
                return None
            if self.socket in ready:
                frame = hearth_frames.read(self)
                assert frame is not None, f"the kernel died; it said {captured}"
                assert frame["id"] == self.cells, frame
                if frame["type"] in ("done", "exited"):
                    break
                if frame["type"] == "display":
                    cell.displays.append(frame["data"])
                if frame["type"] != "display" or "name" in frame:
                    cell.said.append(frame)
                if frame["type"] == "clear":
                    captured = dict.fromkeys(captured, b"")
        for pipe in captured:
            while waiting(pipe):
                captured[pipe] += os.read(pipe, waiting(pipe))
        cell.result, cell.error = frame.get("result"), frame.get("error")
        cell.status = frame.get("status")
        cell.stdout, cell.stderr = (text.decode() for text in captured.values())
        return cell

    def ask(self, frame):
        """Sends what is no cell; the answer. What is printed meanwhile is dropped."""
        unsent = memoryview(hearth_frames.encode(frame))
        while True:
            receive, send, _ = select.select(
                [self.socket, self.stdout, self.stderr], [self.socket] if unsent else [], [], PATIENCE
            )
            assert receive or send, "the kernel hangs"
            for pipe in (self.stdout, self.stderr):
                if pipe in receive:
                    os.read(pipe, 1 << 16)
            if send:
                unsent = unsent[self.socket.send(unsent, socket.MSG_DONTWAIT) :]
            if self.socket in receive:
                answer = hearth_frames.read(self)
                assert answer is not None, "the kernel died"
                for pipe in (self.stdout, self.stderr):
                    while waiting(pipe):
                        os.read(pipe, waiting(pipe))
                return answer

    def snapshot(self, max_bytes=16 << 20, seconds=PATIENCE):
        """The session's variables, as for a move."""
        frame = {"type": "snapshot", "max_bytes": max_bytes, "within_ms": int(seconds * 1000)}
        answer = self.ask(frame)
        assert answer["type"] == "snapshot", answer
        return Saved(base64.b64decode(answer["variables"], validate=True), answer["lost"])

    def restore(self, data, seconds=PATIENCE):
        """Takes variables over; the names of those that cannot be."""
        variables = base64.b64encode(data).decode()
        answer = self.ask({"type": "restore", "variables": variables, "within_ms": int(seconds * 1000)})
        assert answer["type"] == "restored", answer
        return answer["lost"]

    def run(self, code):
        """Runs a cell."""
        self.begin(code)
        return self.end()

    def close(self):
        """Ends the kernel as the worker does; returns its exit status."""
        self.socket.close()
        os.close(self.stdout)
        os.close(self.stderr)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def waiting(pipe):
    """How many bytes a pipe holds."""
    return struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, b"\0\0\0\0"))[0]


class Case(unittest.TestCase):
    """One scenario with a session of its own."""

    def setUp(self):
        self.session = Session()
        self.run_cell = self.session.run

    def tearDown(self):
        self.assertEqual(self.session.close(), 0)

    def succeeds(self, code):
        """Runs a cell that must not fail."""
        cell = self.session.run(code)
        self.assertIsNone(cell.error, cell.error and cell.error["traceback"])
        return cell

    def fails(self, code):
        """Runs a cell that must fail; returns its error."""
        cell = self.session.run(code)
        self.assertIsNotNone(cell.error, cell)
        return cell.error
