"""How values are pickled in one kernel and unpickled in another: one after the other, with one memo.

What several values share is written once, and is one thing again where it is read: closures over the
same variable, an instance and its class, lists of the same rows.
"""

import collections
import functools
import io
import pickle
import sys
import typing

import cloudpickle

_PROTOCOL = 5


def _anchors(shell):
    """What both kernels have: known to the memo from the beginning, and never written."""
    return shell.user_ns, shell


_ANCHORS = 2
# As a pickle, which comes before all others.
PRELUDE = (
    b"".join(pickle.BININT1 + bytes([n]) + pickle.BINPERSID + pickle.MEMOIZE for n in range(_ANCHORS))
    + pickle.NONE
    + pickle.STOP
)


class Pickler(cloudpickle.Pickler):
    """cloudpickle's, for the variables of a session.

    Functions of cells keep the session's namespace as their globals instead of a copy of some of it, so
    they see each other's changes there, and a global that cannot be carried is no loss of theirs.
    """

    def __init__(self, sink, shell):
        super().__init__(sink, protocol=_PROTOCOL)
        self.memo = dict(enumerate(enumerate(_anchors(shell))))
        self._namespace = shell.user_ns
        # What becomes the globals of functions with these globals.
        self.globals_ref[id(shell.user_ns)] = shell.user_ns
        self._cells = {}

    def _function_getnewargs(self, func):
        *others, cells = super()._function_getnewargs(func)
        if cells:
            # Empty ones, filled when the function is there. Two functions over one variable get the same.
            pairs = zip(func.__closure__, cells)
            cells = tuple(self._cells.setdefault(id(cell), (empty, cell))[0] for cell, empty in pairs)
        return *others, cells

    def _dynamic_function_reduce(self, func):
        reduced = super()._dynamic_function_reduce(func)
        if func.__globals__ is self._namespace:
            _, slots = reduced[2]
            slots["__globals__"] = {}
        return reduced


def place(pickler, sink, known):
    """The number of something in the memo, as the pickler refers to it when it meets it again."""
    end = len(sink)
    pickler.dump(known)
    said = bytes(sink[end:])
    del sink[end:]
    # PROTO 5; BINGET and a byte, or in a frame LONG_BINGET and four bytes; STOP.
    return said[-2] if len(said) == 5 else int.from_bytes(said[-5:-1], "little")


def _file_reduce(file):
    for name in ("stdout", "stderr"):
        if file is getattr(sys, name):
            return getattr, (sys, name)
    # cloudpickle would carry what can be read from it.
    raise pickle.PicklingError("a file")


def _cached(function, parameters):
    return functools.lru_cache(**parameters)(function)


def _is_of_a_cell(thing):
    """Whether a name and a module, which is all that some things say of themselves, would not be enough:
    cells are the main module, and this one makes some things anew."""
    return thing.__module__ in ("__main__", __name__)


def _cached_reduce(function):
    if not _is_of_a_cell(function):
        return function.__reduce__()
    return _cached, (function.__wrapped__, function.cache_parameters())


def _new_type_reduce(kind):
    if not _is_of_a_cell(kind):
        return kind.__reduce__()
    return typing.NewType, (kind.__name__, kind.__supertype__), {"__module__": "__main__"}


def _alias_reduce(alias):
    if not _is_of_a_cell(alias):
        return alias.__reduce__()
    return _alias, (alias.__name__, alias.__value__, alias.__type_params__)


def _alias(name, value, parameters):
    return typing.TypeAliasType(name, value, type_params=parameters)


Pickler.dispatch_table = collections.ChainMap(
    {
        io.TextIOWrapper: _file_reduce,
        type(functools.cache(_cached)): _cached_reduce,
        typing.NewType: _new_type_reduce,
        typing.TypeAliasType: _alias_reduce,
    },
    cloudpickle.Pickler.dispatch_table,
)


class Unpickler:
    """Reads what one Pickler wrote, after its PRELUDE at `start`."""

    def __init__(self, source, start, shell):
        self._source = source
        self._anchors = _anchors(shell)
        self._fast = _Fast(source, self._anchors)
        source.seek(start)
        self._fast.load()
        self._exact = None

    def load(self, offset, place):
        """The value at an offset. `place` is where its memo begins, which is where that of the one before
        it ended."""
        self._source.seek(offset)
        if self._exact:
            return self._exact.load(place)
        try:
            return self._fast.load()
        except BaseException:
            # It is in the middle of something now, and its memo has half of it.
            known = {n: thing for n, thing in self._fast.memo.copy().items() if n < place}
            self._exact, self._fast = _Exact(self._source, known), None
            raise


class _Fast(pickle.Unpickler):
    """Right until the first failure."""

    def __init__(self, source, anchors):
        super().__init__(source)
        self._anchors = anchors

    def persistent_load(self, number):
        return self._anchors[number]


class _Exact(pickle._Unpickler):
    """Puts what it reads in its place in the memo. So a value that cannot be read leaves a hole, and those
    that refer to something in it fail, instead of getting half of it, or another thing."""

    def __init__(self, source, memo):
        super().__init__(source)
        self.memo = memo

    def load(self, place):
        self._next = place
        try:
            return super().load()
        except BaseException:
            for n in range(place, self._next):
                self.memo.pop(n, None)
            raise

    def load_memoize(self):
        self.memo[self._next] = self.stack[-1]
        self._next += 1

    dispatch = {**pickle._Unpickler.dispatch, pickle.MEMOIZE[0]: load_memoize}
