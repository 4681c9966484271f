"""What a session is likely to want is imported and used once, so that every fork has it ready."""

import gc
import io
import os
import sys
import warnings


def warm():
    """Warms this process up and returns the shell. Exits if a thread or an open file was left behind."""
    import hearth_share
    import hearth_shell

    shell = hearth_shell.build()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _libraries()
        _cells(shell)
    hearth_share.find_pools()
    _close_files()
    gc.collect()
    _check()
    gc.freeze()
    # Full collections wait until a quarter of what the last one kept is new: that shall not be the
    # frozen objects' number, or a session would pile up garbage for long.
    gc.collect()
    return shell


def _close_files():
    """A join closes all files, and who finds its own closed fails. They are opened anew on demand."""
    import hearth_loop
    from matplotlib import font_manager

    font_manager._get_font.cache_clear()
    hearth_loop.end()


def _check():
    threads = os.listdir("/proc/self/task")
    if len(threads) != 1:
        raise SystemExit(f"warm-up left {len(threads)} threads; a fork takes only one along")
    # Standard streams, the control socket and this very listing.
    names = sorted(int(name) for name in os.listdir("/proc/self/fd"))
    if names != [0, 1, 2, 3, 4]:
        raise SystemExit(f"warm-up left files open: {names}; a join closes them under their owners")


def _libraries():
    import ast, asyncio, csv, datetime, decimal, json, math, multiprocessing, pickle  # noqa: E401, F401
    import re, socket, sqlite3, ssl, statistics, struct, subprocess, threading, urllib.request, uuid  # noqa: E401, F401

    import numpy as np
    import pandas as pd

    frame = pd.DataFrame({"a": np.arange(50), "b": np.random.rand(50), "c": ["x", "y"] * 25})
    repr(frame), frame._repr_html_(), frame.describe(), frame.info(buf=io.StringIO())
    frame.groupby("c").b.mean(), frame.groupby("a").agg({"b": ["sum", "max"]})
    frame.merge(frame, on="a"), frame.sort_values("b"), (frame.b * 2).sum(), frame[frame.a > 3]
    frame.to_csv(io.StringIO()), pd.read_csv(io.StringIO("a,b\n1,2\n")), frame.to_json()
    pd.to_datetime(["2020-01-01"]), pd.date_range("2020", periods=3), frame.pivot_table("b", "a", "c")
    np.linalg.inv(np.eye(3) + 0.1), np.fft.fft(np.arange(8)), np.random.default_rng(1).normal(size=3)

    import matplotlib.pyplot as plt
    import pkg_resources  # noqa: F401 # AutoGen asks it for the packages, and reads its warning as one
    import scipy.optimize  # noqa: F401
    import scipy.stats  # noqa: F401
    from sklearn.ensemble import RandomForestClassifier  # noqa: F401
    from sklearn.linear_model import LinearRegression

    LinearRegression().fit(np.arange(6).reshape(3, 2), [1, 2, 3])
    figure, axes = plt.subplots()
    axes.plot([1, 2, 3], [1, 4, 9], label="line")
    axes.bar([1, 2], [3, 4]), axes.set_title("title"), axes.legend()
    figure.savefig(io.BytesIO(), format="png")
    plt.close("all")


def _cells(shell):
    """The very path that a session's cells take, once for each kind of end."""
    import hearth_shell

    cells = (
        "1+1",
        "x = [str(n) for n in range(200)]\nx",
        "import pandas as pd\npd.DataFrame({'a': [1, 2]})",
        "print('', end='')",
        "1/0",
        "def broken(:",
        "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()",
        "await __import__('asyncio').sleep(0)",
        "display(1)",
    )
    for cell in cells:
        hearth_shell.run(shell, cell, lambda *_: None)
    shell.reset(new_session=True)
    shell.execution_count = 1
    for name in ("last_exc", "last_type", "last_value", "last_traceback"):
        sys.__dict__.pop(name, None)
