"""Frames on the socket to the worker: a little-endian u32 length and a JSON object."""

import json
import struct

LIMIT = 32 * 1024 * 1024

# User code shares this interpreter and may replace what modules hold: keep what is needed.
_dumps, _loads = json.dumps, json.loads
_LENGTH = struct.Struct("<I")


class TooLong(ValueError):
    """A frame above LIMIT."""


def encode(frame):
    """The bytes of a frame. Text that UTF-8 cannot hold is escaped, as JSON allows."""
    body = _dumps(frame, ensure_ascii=True, separators=(",", ":")).encode("ascii")
    if len(body) > LIMIT:
        raise TooLong(f"{len(body)} bytes")
    return _LENGTH.pack(len(body)) + body


def read(stream):
    """The next frame, or None at the end of the stream."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    if length > LIMIT:
        raise TooLong(f"{length} bytes")
    body = stream.read(length)
    return _loads(body) if len(body) == length else None
