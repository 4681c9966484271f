"""What a session installs: `pip` puts it into the user's own directory, and cells find it there at once."""

import collections
import contextlib
import os
import site
import sys

# User code may replace what modules hold: keep what is needed after it ran.
_listdir, _stat = os.listdir, os.stat
_DIRECTORY = site.getusersitepackages()
_INSTALLED = (".dist-info", ".egg-info")


def begin():
    """Has this process look there, as every Python does: after the standard library, before what the system has.
    So what is installed is taken, unless it is loaded already, as is all that the kernel itself needs."""
    # It must be there before the first look: of one that is not, the importer remembers that.
    with contextlib.suppress(OSError):  # the disk is full, or the session has closed it to itself
        os.makedirs(_DIRECTORY, exist_ok=True)
    site.ENABLE_USER_SITE = True
    systems = (place for place, entry in enumerate(sys.path) if entry.endswith("-packages"))
    sys.path.insert(next(systems, len(sys.path)), _DIRECTORY)
    sys.meta_path.append(_Linked())
    sys.flags = _USUAL_FLAGS


def _usual_flags():
    """The flags of an interpreter that was started as usual. This one is isolated, and what hands its own flags
    on to others (multiprocessing, ray) would keep them from the session's directory and environment."""
    told = {name: getattr(sys.flags, name) for name in type(sys.flags).__match_args__}
    told |= dict.fromkeys(("isolated", "ignore_environment", "no_user_site"), 0)
    return collections.namedtuple("flags", told, module="sys")(**told | {"safe_path": False})


_USUAL_FLAGS = _usual_flags()  # made once for all sessions


def names():
    """The packages in the session's own directory."""
    try:
        entries = sorted(_listdir(_DIRECTORY))
    except OSError:
        return []
    return [entry.partition("-")[0] for entry in entries if entry.endswith(_INSTALLED)]


class _Linked:
    """Finds what is installed where it lies (`pip install --editable`). Files in the directory say where that is,
    and Python reads those at its start; this process has to read them when something is missed."""

    def __init__(self):
        self._read = None
        self._known = set()

    def find_spec(self, name, path=None, target=None):
        if path is not None or not self._has_read_new_ones():
            return None
        # What they install there may be a finder, too.
        for finder in list(sys.meta_path):
            find = getattr(finder, "find_spec", None)  # old ones have none, and Python skips them
            if finder is not self and find is not None and (spec := find(name, path, target)) is not None:
                return spec
        return None

    def _has_read_new_ones(self):
        try:
            changed = _stat(_DIRECTORY).st_mtime_ns
            if changed == self._read:
                return False
            self._read = changed
            links = (entry for entry in _listdir(_DIRECTORY) if entry.endswith(".pth"))
            found = {(entry, _stat(os.path.join(_DIRECTORY, entry)).st_mtime_ns) for entry in links}
        except OSError:
            return False
        new = found - self._known
        self._known |= new
        # Once each: what they run adds to the finders.
        for entry, _ in sorted(new):
            site.addpackage(_DIRECTORY, entry, set(sys.path))
        return bool(new)
