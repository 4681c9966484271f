"""Frames on the socket to the worker: a little-endian u32 length and a JSON object."""

import json
import re
import struct

LIMIT = 32 * 1024 * 1024

# User code shares this interpreter and may replace what modules hold: keep what is needed.
_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_from_json = json.JSONDecoder().decode
_LENGTH = struct.Struct("<I")
_SURROGATE = re.compile("[\ud800-\udfff]")


class TooLong(ValueError):
    """A frame above LIMIT."""


def encode(frame):
    """The bytes of a frame. Half characters, which no UTF-8 can hold, become `\\udXXX` as text."""
    text = _to_json(frame)
    try:
        body = text.encode()
    except UnicodeEncodeError:
        body = _SURROGATE.sub(lambda half: f"\\\\u{ord(half[0]):04x}", text).encode()
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
    return _from_json(body.decode()) if len(body) == length else None
