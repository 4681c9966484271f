# Runs in a session and speaks for its kernel. `say(frame…)` writes frames in one go, as objects or as the
# bytes of one; `done(…)` is an answer to the cell that runs, `shown(…)` a display output of it, `number()`
# its id.
import json, os, socket, struct, sys, threading, time


def number():
    at = sys._getframe()
    while not {"channel", "number"} <= set(at.f_locals):
        at = at.f_back
    return at.f_locals["number"]


def done(result=None, error=None, id=None):
    result = {"text/plain": result} if isinstance(result, str) else result
    return {"type": "done", "id": id or number(), "result": result, "error": error}


def shown(text, id=None):
    return {"type": "display", "id": id or number(), "data": {"text/plain": text}}


def say(*frames):
    whole = b""
    for frame in frames:
        body = frame if isinstance(frame, bytes) else json.dumps(frame).encode()
        whole += struct.pack("<I", len(body)) + body
    write(whole)


def write(whole):
    view = memoryview(whole)
    while view:
        view = view[os.write(3, view) :]
