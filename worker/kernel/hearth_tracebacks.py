"""Tracebacks as they are told: of many frames of libraries, few; of an interrupt, as little as helps."""

import linecache
import types

from IPython.core.ultratb import AutoFormattedTB

# More frames of libraries than this are cut.
_MANY = 8
# Of the last ones, where it happened, these remain; of those before a frame of the user's, one at each end.
_LAST = 3
# Lines before and after the one that is meant.
_CONTEXT = 2
# Frames of the user's own that are shown of an interrupt: recursion may be deep.
_OWN = 20
_LIBRARIES = ("/usr/", "/opt/", "<frozen ")
_KERNEL = "/opt/hearth/"
_PACKAGES = ("/site-packages/", "/dist-packages/")


def is_of_a_library(filename):
    """Whether a file is not the user's own."""
    return filename.startswith(_LIBRARIES) or any(part in filename for part in _PACKAGES)


def cut(own):
    """Which frames stay, of a traceback whose frames are the user's own or not: pairs of the number of
    frames that are left out before, and the frame's index."""
    if len(own) - sum(own) <= _MANY:
        return [(0, index) for index in range(len(own))]
    last_own = max((index for index, is_own in enumerate(own) if is_own), default=-1)

    def stays(index):
        if own[index] or index >= len(own) - _LAST:
            return True
        # The first of a library's, and the one that called back.
        return (index > 0 and own[index - 1]) or (index < last_own and own[index + 1])

    kept, left_out = [], 0
    for index in range(len(own)):
        if stays(index):
            kept.append((left_out, index))
            left_out = 0
        else:
            left_out += 1
    return kept


def told(count):
    """What stands for frames that are left out."""
    return f"    [... {count} frame{'s' if count > 1 else ''} of libraries left out]\n"


def _links(trace):
    links = []
    while trace is not None:
        links.append(trace)
        trace = trace.tb_next
    return links


class Tracebacks(AutoFormattedTB):
    """IPython's, without most frames of libraries and without those of this kernel."""

    def get_records(self, etb, context, tb_offset):
        links = [link for link in _links(etb) if not _is_the_kernels(link)]
        kept = cut([not is_of_a_library(link.tb_frame.f_code.co_filename) for link in links])
        if not kept:
            return super().get_records(etb, context, tb_offset)
        short, gaps = None, {}
        for count, index in reversed(kept):
            link = links[index]
            short = types.TracebackType(short, link.tb_frame, link.tb_lasti, link.tb_lineno)
            if count:
                gaps[id(link.tb_frame)] = count
        records = []
        for record in super().get_records(short, context, tb_offset):
            count = gaps.pop(id(record.frame), 0)
            if count:
                records.append(_Gap(count))
            records.append(record)
        return records

    def format_record(self, frame_info):
        if isinstance(frame_info, _Gap):
            return told(frame_info.count)
        return super().format_record(frame_info)


class _Gap:
    """Stands among the frames for those that were cut."""

    class frame:
        f_locals = {}

    _sd = None

    def __init__(self, count):
        self.count = count


def _is_the_kernels(link):
    """Whether a frame is of the shell, or stands before what it calls in the place of a library's function."""
    frame = link.tb_frame
    module = frame.f_globals.get("__name__", "")
    return module.partition(".")[0] == "IPython" or frame.f_code.co_filename.startswith(_KERNEL)


def of_an_interrupt(trace, name):
    """Where an interrupt hit: cheap to write, for whoever is interrupted has little time."""
    links = [link for link in _links(trace) if not _is_the_kernels(link)]
    own = [not is_of_a_library(link.tb_frame.f_code.co_filename) for link in links]
    kept, lines = cut(own), []
    if len(kept) > 2 * _OWN:
        kept = kept[:_OWN] + kept[-_OWN:]
    before = -1
    for _, index in kept:
        if index > before + 1:
            lines.append(told(index - before - 1))
        before = index
        lines.append(_lines(links[index], own[index]))
    return "".join((*lines, name))


def _lines(link, is_own):
    code, current = link.tb_frame.f_code, link.tb_lineno
    filename, around = code.co_filename, _CONTEXT if is_own else 0
    call = "" if code.co_name == "<module>" else f", in {code.co_qualname}"
    lines = [f"{_place(filename, current)}{call}\n"]
    for number in range(max(current - around, 1), current + around + 1):
        source = linecache.getline(filename, number, link.tb_frame.f_globals).rstrip()
        mark = f"----> {number}" if number == current else f"{number:>7}"
        if source or number == current:
            lines.append(f"{mark} {source}\n")
    return "".join(lines) + "\n"


def _place(filename, number):
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    cell = shell and shell.compile.format_code_name(filename)
    return f"{' '.join(cell)}, line {number}" if cell else f"File {filename}:{number}"
