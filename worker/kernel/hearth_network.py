"""What a session without a network is told: that there is none, where it tries to reach one, and what its
loopback interface is, where it asks. Libraries ask for that over netlink, which sessions have not.

Processes that code starts hear the system's own words.
"""

import _socket
import contextlib
import errno
import functools
import socket

import hearth_tracebacks
import psutil

NONE = (
    "this session has no network, so do not try again: "
    "ask for the file to be uploaded to /mnt/data, and read it from there"
)
# What the resolver says when it has nobody to ask. The names of this machine it finds without.
_NOBODY_TO_ASK = {
    _socket.gaierror: _socket.EAI_AGAIN,
    _socket.herror: 2,  # TRY_AGAIN
}
# An exception may be its own cause.
_LONGEST_CHAIN = 100
_LOOPBACK = "lo"


def install():
    """Tells it."""
    for name in ("gethostbyaddr", "gethostbyname", "gethostbyname_ex", "getnameinfo"):
        _replace(name, _telling(getattr(socket, name)))
    # The other module's is Python and calls this.
    _socket.getaddrinfo = _telling(_socket.getaddrinfo)
    for name in ("connect", "sendto"):
        setattr(socket.socket, name, _telling(getattr(_socket.socket, name)))
    _tell_of_the_loopback()


def _replace(name, function):
    # In both modules: it is pickled by the name that it has in C's.
    for module in (_socket, socket):
        setattr(module, name, function)


def _telling(function):
    @functools.wraps(function)
    def telling(*arguments, **named):
        try:
            return function(*arguments, **named)
        except OSError as error:
            if error.errno == _NOBODY_TO_ASK.get(type(error), errno.ENETUNREACH):
                error.strerror = NONE
                error.args = (error.errno, NONE)
            raise

    return telling


def ended(error, trace):
    """The traceback of what ended a cell. Its last line says that there is no network if that is why, whatever
    a library made of it."""
    shown = trace.rstrip("\n")
    with contextlib.suppress(Exception):  # the user's own exceptions may be anything
        if NONE not in shown.rpartition("\n")[2] and _is_why(error):
            return f"{shown}\n{NONE}"
    return trace


def _is_why(error):
    causes = [error]
    for _ in range(_LONGEST_CHAIN):
        if not causes:
            return False
        error = causes.pop()
        if isinstance(error, OSError) and error.strerror == NONE:
            return True
        if isinstance(error, BaseExceptionGroup):
            causes.extend(error.exceptions)
        if error.__cause__ is not None:
            causes.append(error.__cause__)
        elif error.__context__ is not None and _is_raised_and_caught_by_libraries(error):
            # Code that tries something else, and fails at that, has another problem.
            causes.append(error.__context__)
    return False


def _is_raised_and_caught_by_libraries(error):
    """The error by one, and what it came of by one: a trace begins where it was caught."""
    raised, caught = error.__traceback__, error.__context__.__traceback__
    while raised is not None and raised.tb_next is not None:
        raised = raised.tb_next
    return all(
        trace is not None and hearth_tracebacks.is_of_a_library(trace.tb_frame.f_code.co_filename)
        for trace in (raised, caught)
    )


def _tell_of_the_loopback():
    linux = psutil._psplatform
    _replace("if_nameindex", _else(socket.if_nameindex, _names))
    linux.net_if_addrs = _else(linux.net_if_addrs, _addresses)
    linux.cext.net_if_duplex_speed = _else(linux.cext.net_if_duplex_speed, _duplex_and_speed)


def _else(function, told):
    """What a function finds, or what is told instead where it may not look."""

    @functools.wraps(function)
    def asked(*arguments):
        try:
            return function(*arguments)
        except PermissionError:
            return told(*arguments)

    return asked


def _names():
    return [(socket.if_nametoindex(_LOOPBACK), _LOOPBACK)]


def _addresses():
    """As psutil's own, which puts names to these."""
    addresses = [(_LOOPBACK, socket.AF_INET, "127.0.0.1", "255.0.0.0", None, None)]
    if _has_the_sixth_version():
        addresses.append((_LOOPBACK, socket.AF_INET6, "::1", "ffff:" * 7 + "ffff", None, None))
    addresses.append((_LOOPBACK, socket.AF_PACKET, "00:00:00:00:00:00", None, None, None))
    return addresses


def _has_the_sixth_version():
    try:
        with open("/proc/net/if_inet6") as file:
            return any(line.split()[-1:] == [_LOOPBACK] for line in file)
    except OSError:
        return False


def _duplex_and_speed(_):
    """An interface that is no cable has neither."""
    return [psutil._psplatform.cext.DUPLEX_UNKNOWN, 0]
