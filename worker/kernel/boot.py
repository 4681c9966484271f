"""The zygote: warms up, then serves joins. Every child that libzygote forks comes back from
`zygote_serve` as the kernel of one session.

Every session can read all of this process's memory, so nothing secret is ever in it.
"""

import ctypes
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))

sys.path.insert(0, HERE)
import hearth_kernel  # noqa: E402
import hearth_warm  # noqa: E402

sys.path.remove(HERE)
shell = hearth_warm.warm()
# PyDLL keeps the interpreter's lock while the library runs: its children go on in Python.
library = ctypes.PyDLL(os.path.join(HERE, "libzygote.so"))
library.zygote_serve(3)
hearth_kernel.main(shell, 3)
