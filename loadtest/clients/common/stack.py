"""What the tests of the Python clients share: the stack under test and things to send to it."""

import os
import pathlib
import shutil
import tempfile
import threading
import unittest
import urllib.error
import urllib.parse
import urllib.request
import uuid

ENDPOINT = os.environ["POOL_ENDPOINT"]
SHELL_ENDPOINT = os.environ["SHELL_POOL_ENDPOINT"]
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


def new_id(prefix="client-", endpoint=ENDPOINT):
    """A session that nobody has used, and that goes with the module's tests."""
    session = f"{prefix}{uuid.uuid4()}"
    unittest.addModuleCleanup(_delete, endpoint, session)
    return session


def _delete(endpoint, session):
    """Makes room for others; what a deletion must do is tested where a client has it."""
    query = urllib.parse.urlencode({"api-version": "2025-10-02-preview", "identifier": session})
    request = urllib.request.Request(
        f"{endpoint}/session?{query}",
        method="DELETE",
        headers={"Authorization": f"Bearer {TOKEN}"},
    )
    try:
        urllib.request.urlopen(request, timeout=30).close()
    except urllib.error.HTTPError as error:
        # Not every test gets as far as using its session.
        error.close()


def deleted(use):
    """Calls what deletes a session and waits for it: LangChain's tools do it in a thread."""
    before = set(threading.enumerate())
    use()
    for thread in set(threading.enumerate()) - before:
        thread.join(30)


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
