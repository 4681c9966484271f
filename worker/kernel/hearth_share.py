"""A session's share of its host, as Python and the loaded libraries tell it.

Programs find it in the files of their cage (`still_files.rs`). What is left asks the system, which tells
what the host has; or asked long ago, in the zygote.
"""

import os
import posix
import sys

_FILES = "/sys/fs/cgroup"
# As many threads as the zygote's libraries use: see `environment`.
_OF_THE_ZYGOTE = 1
# What programs and libraries that are loaded from now on take for the number of their threads.
_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMEXPR_MAX_THREADS",
    "NUMBA_NUM_THREADS",
    "POLARS_MAX_THREADS",
    "RAYON_NUM_THREADS",
    "OPENCV_FOR_THREADS_NUM",
    "LOKY_MAX_CPU_COUNT",
    "PYTHON_CPU_COUNT",
    "GOMAXPROCS",
)
_pools = []
_affinity, _sysconf = os.sched_getaffinity, os.sysconf


def find_pools():
    """Finds the thread pools of the loaded libraries: in the zygote, for it takes milliseconds."""
    import threadpoolctl

    _pools[:] = threadpoolctl.ThreadpoolController().lib_controllers


def take():
    """From now on everything tells what this session has."""
    try:
        memory = int(_read("memory.max"))
    except OSError:
        # No cage: a test of the kernel.
        return
    # The C library reads a file of the cage.
    processors = os.cpu_count() or 1
    os.environ.update(dict.fromkeys(_VARIABLES, str(processors)))
    _tell_affinity(processors)
    _tell_memory(memory)
    if processors != _OF_THE_ZYGOTE:
        _use(processors)


def _read(name):
    with open(f"{_FILES}/{name}", "rb", buffering=0) as file:
        return file.read()


def _tell_affinity(processors):
    def sched_getaffinity(pid, /):
        """Return the set of CPUs that a process of this session may count on."""
        return set(sorted(_affinity(pid))[:processors])

    # `os.process_cpu_count` asks it, too.
    _replace(sched_getaffinity)


def _tell_memory(size):
    pages = size // _sysconf("SC_PAGE_SIZE")
    told = {}
    for name in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES"):
        told[name] = told[os.sysconf_names[name]] = pages

    def sysconf(name, /):
        """Return an integer-valued system configuration variable."""
        return told[name] if name in told else _sysconf(name)

    _replace(sysconf)


def _replace(function):
    """Puts a function into `os`, under whose name it is pickled."""
    name = function.__name__
    function.__module__, function.__qualname__ = "os", name
    for module in (os, posix):
        if hasattr(module, name):
            setattr(module, name, function)


def _use(processors):
    for pool in _pools:
        pool.set_num_threads(processors)
    if (arrow := sys.modules.get("pyarrow")) is not None:
        arrow.set_cpu_count(processors)
