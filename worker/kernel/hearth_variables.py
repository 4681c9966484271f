"""A session's variables on a planned move: one kernel writes them, another reads them.

Each variable is a pickle of its own, so that one that cannot be written or read costs only itself, and all
are written by one pickler, so that what they share stays shared. The price is paid where something fails:
the memo knows things then of what must be taken back (`_Writer`), or lacks things that later variables
refer to (`hearth_pickle.Unpickler`).
"""

import functools
import importlib.util
import io
import pickle
import re
import struct
import time
import types

import cloudpickle
import hearth_packages
import hearth_pickle

# What is told of lost variables: so many names of so many characters. The worker has the same limits.
LOST_NAMES = 100
LOST_NAME_CHARS = 64
# Told in place of names that nobody knows.
ALL = ["all variables"]

# Byte code and cloudpickle's own functions are for one version only.
_VERSION = f"Python {importlib.util.MAGIC_NUMBER.hex()} cloudpickle {cloudpickle.__version__}"
_HEAD = f"hearth variables 1 {_VERSION}\n".encode()
# Before each variable: length of its name, its place in the memo, length of its pickle; then the name.
_RECORD = struct.Struct("<III")
# What is tried alone before it is written among the others: of longer ones, so many bytes.
_TRIAL_BYTES = 64 << 10
# Most bytes that are written again because of a variable that fails.
_AGAIN_BYTES = 4 << 20
# User code may replace what modules hold: keep what is needed.
_now, _BytesIO, _MemoHolder = time.monotonic, io.BytesIO, pickle.Pickler

_PARTS = (type, types.FunctionType, types.ModuleType, type(functools.cache(_now)))
# What the class says itself may be anything.
_class_name = type.__dict__["__name__"].__get__
_HISTORY = re.compile("_{1,3}|_i{1,3}|_i?[0-9]+")
_MODULES = {f"__{n}__" for n in "builtin builtins doc loader name package spec warningregistry".split()}


def save(shell, limit, seconds):
    """The variables in at most `limit` bytes, and the names of those that are not there: they cannot be
    pickled, found no room, or were not reached within `seconds`; and the packages that were installed. One that
    takes for ever is not ended."""
    writer = _Writer(shell, limit, _now() + seconds)
    # What others are made of comes first: it can be read then whether those can or not.
    for name, value in sorted(list(shell.user_ns.items()), key=_is_a_part, reverse=True):
        if type(name) is not str:
            writer.lost.append(f"<{_class_name(type(name))}>")
        elif not _is_the_shells_own(shell, name, value):
            writer.write(name, value)
    # They stay behind as well.
    packages = (f"package {name}" for name in hearth_packages.names())
    return bytes(writer.data), told([*writer.lost, *packages])


def load(shell, data, seconds):
    """Takes written variables into the shell. The names of those that cannot be read, or were not reached
    within `seconds`."""
    until = _now() + seconds
    try:
        start = data.index(b"\n") + 1
        records = list(_records(data, start + len(hearth_pickle.PRELUDE)))
    except Exception:
        return ALL
    if data[:start] != _HEAD:
        return told(name for name, _, _ in records)
    unpickler = hearth_pickle.Unpickler(_BytesIO(data), start, shell)
    builtins = shell.user_ns["__builtins__"]
    failed = None
    # What one needs of the others while it is read may come after it.
    while records and len(records) != failed:
        failed = len(records)
        records = [record for record in records if not _read(shell, unpickler, until, *record)]
    # cloudpickle sets it with each function.
    shell.user_ns["__builtins__"] = builtins
    return told(name for name, _, _ in records)


def _records(data, offset):
    while offset < len(data):
        length, place, size = _RECORD.unpack_from(data, offset)
        start = offset + _RECORD.size + length
        yield data[offset + _RECORD.size : start].decode("utf-8", "surrogatepass"), start, place
        offset = start + size


def _read(shell, unpickler, until, name, offset, place):
    if _now() > until:
        return False
    try:
        (value,) = unpickler.load(offset, place)
    except BaseException:
        return False
    shell.user_ns[name] = value
    return True


def told(names):
    """Names as they are told: few, short, each in one line."""
    names = [_short(name) for name in names]
    if len(names) > LOST_NAMES:
        names[LOST_NAMES - 1 :] = [f"and {len(names) - LOST_NAMES + 1} more"]
    return names


def _short(name):
    start = name[: LOST_NAME_CHARS + 1]
    shown = start if start.isprintable() else ascii(start)[1:-1]
    return shown if len(shown) <= LOST_NAME_CHARS else shown[: LOST_NAME_CHARS - 1] + "…"


def _is_a_part(variable):
    return issubclass(type(variable[1]), _PARTS)


def _is_the_shells_own(shell, name, value):
    if name in _MODULES or _HISTORY.fullmatch(name):
        return True
    # A user's own `exit` or `open` is a variable.
    return name in shell.user_ns_hidden and shell.user_ns_hidden[name] is value


class _Full(Exception):
    """No room is left."""


class _Sink:
    """Takes bytes up to a limit."""

    def __init__(self, limit):
        self.data = bytearray()
        self._limit = limit

    @property
    def room(self):
        return self._limit - len(self.data)

    def write(self, data):
        # A pickler hands on what it need not copy, of whatever shape.
        if memoryview(data).nbytes > self.room:
            raise _Full
        self.data += data


class _Writer:
    """Writes one variable after the other.

    Most of those that cannot be pickled are found by a trial and are never written. Where that is not
    enough, the writer goes back to its last mark, for a memo cannot forget single things, and writes what
    was good since then again. So a value may be pickled several times.
    """

    def __init__(self, shell, limit, until):
        self.lost = []
        self._until = until
        self._trial = _Sink(_TRIAL_BYTES)
        self._tries = hearth_pickle.Pickler(self._trial, shell)
        self._untried = self._tries.memo.copy()
        self._sink = _Sink(limit)
        self.data = self._sink.data
        self._sink.write(_HEAD + hearth_pickle.PRELUDE)
        self._pickler = hearth_pickle.Pickler(self._sink, shell)
        # Never pickles: its memo is a copy, in C. One in Python takes twenty times as long and as much memory.
        self._mark = _MemoHolder(_BytesIO())
        self._set_mark()

    def write(self, name, value):
        if _now() > self._until or not self._passes(value):
            self.lost.append(name)
        elif self._written(name, value):
            self._since.append((name, value))
            if len(self.data) - self._marked > _AGAIN_BYTES:
                self._set_mark()
        else:
            self.lost.append(name)
            self._take_back()

    def _passes(self, value):
        del self._trial.data[:]
        try:
            self._tries.dump(value)
            return len(self._trial.data) <= self._sink.room
        except BaseException as error:
            # It has begun with things that it did not end.
            self._tries.memo = self._untried
            return isinstance(error, _Full)

    def _written(self, name, value):
        data, start, text = self.data, len(self.data), name.encode("utf-8", "surrogatepass")
        try:
            self._sink.write(_RECORD.pack(0, 0, 0) + text)
            begin = len(data)
            self._pickler.dump(boxed := [value])
            end = len(data)
            # The box is the first thing in the memo that is this variable's.
            place = hearth_pickle.place(self._pickler, data, boxed)
            _RECORD.pack_into(data, start, len(text), place, end - begin)
        except BaseException:
            return False
        return True

    def _set_mark(self):
        self._mark.memo = self._pickler.memo
        self._marked = len(self.data)
        self._since = []

    def _take_back(self):
        good, bad = self._since, 0
        while bad is not None:
            self._pickler.memo = self._mark.memo
            del self.data[self._marked :]
            bad = next((n for n, one in enumerate(good) if not self._written(*one)), None)
            if bad is not None:
                self.lost.append(good.pop(bad)[0])
        self._set_mark()
