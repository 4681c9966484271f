"""Starts unittest. Isolated mode, as the zygote runs in, looks for modules only where it is told."""

import os
import sys
import unittest

# The files of the zygote: standard streams, and the control socket where a kernel has its own.
os.closerange(3, 1024)
os.dup2(0, 3)
sys.path.insert(0, "/opt/hearth/tests")
# No warnings filter: it would be the kernels' too.
unittest.main(module=None, argv=["tests", *sys.argv[1:]], warnings="")
