"""What the tests of the Python clients share: the stack under test and things to send to it."""

import os
import pathlib
import shutil
import tempfile
import uuid

ENDPOINT = os.environ["POOL_ENDPOINT"]
ENDPOINT_HTTPS = os.environ["POOL_ENDPOINT_HTTPS"]
TOKEN = os.environ["TOKEN"]

PNG = b"\x89PNG\r\n\x1a\n"  # how such a file begins
BINARY = bytes(range(256)) * 1024
AWKWARD_NAME = "Résumé (final) 日本 v2.txt"
PLOT = """
import matplotlib.pyplot as plt
plt.plot([1, 2, 3], [1, 4, 9])
plt.show()
"""


def new_id():
    """A session that nobody has used."""
    return f"client-{uuid.uuid4()}"


def directory(test):
    """A directory that goes with the test."""
    path = tempfile.mkdtemp()
    test.addCleanup(shutil.rmtree, path)
    return pathlib.Path(path)


def local_file(test, name, content):
    """A file to upload, which goes with the test."""
    path = directory(test) / name
    path.write_bytes(content)
    return str(path)
