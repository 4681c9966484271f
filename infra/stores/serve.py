"""Runs one object store for tests, on a free loopback port, in memory, until standard input closes.

Usage: serve.py moto|azurite

Prints one line of JSON when the store is ready: the URL to open and the environment variables that
go with it. Run by the Python of the environment that fetch.sh makes.
"""

import base64
import ctypes
import email.utils
import hashlib
import hmac
import json
import logging
import pathlib
import re
import signal
import subprocess
import sys
import urllib.request

NAME = "hearth"
# The account that Azurite's documentation gives to everybody.
ACCOUNT = "devstoreaccount1"
KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)


def moto():
    import boto3
    import one_at_a_time
    from moto.server import ThreadedMotoServer

    one_at_a_time.install()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    endpoint = "http://%s:%d" % server.get_host_and_port()
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test-secret"}
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **keys)
    client.create_bucket(Bucket=NAME)
    ready(
        f"s3://{NAME}",
        AWS_ACCESS_KEY_ID="test",
        AWS_SECRET_ACCESS_KEY="test-secret",
        AWS_REGION="us-east-1",
        AWS_ENDPOINT_URL=endpoint,
        AWS_ALLOW_HTTP="true",
    )
    sys.stdin.read()


def azurite():
    # fetch.sh puts the environment and the node modules side by side.
    directory = pathlib.Path(sys.prefix).parent
    main = directory / "node_modules/azurite/dist/src/blob/main.js"
    options = ["--inMemoryPersistence", "--skipApiVersionCheck", "--disableProductStyleUrl"]
    server = subprocess.Popen(
        [f"{sys.prefix}/bin/node", main, "--blobHost", "127.0.0.1", "--blobPort", "0"]
        + options
        + ["--silent", "--disableTelemetry"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=end_with_parent,
    )
    try:
        endpoint = None
        while endpoint is None:
            line = server.stdout.readline()
            if not line:
                raise SystemExit("azurite did not start")
            listens = re.search(r"listens on (http://\S+)", line)
            endpoint = listens and listens[1]
        create_container(endpoint)
        ready(
            f"az://{NAME}",
            AZURE_STORAGE_ACCOUNT_NAME=ACCOUNT,
            AZURE_STORAGE_ACCOUNT_KEY=KEY,
            AZURE_STORAGE_ENDPOINT=f"{endpoint}/{ACCOUNT}",
            AZURE_ALLOW_HTTP="true",
        )
        sys.stdin.read()
    finally:
        server.kill()
        server.wait()


def end_with_parent():
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def create_container(endpoint):
    """One request with a shared key, for which a client library would be a lot."""
    headers = {
        "x-ms-date": email.utils.formatdate(usegmt=True),
        "x-ms-version": "2023-11-03",
    }
    path = f"/{ACCOUNT}/{NAME}"
    lines = ["PUT"] + [""] * 11
    lines += [f"{name}:{value}" for name, value in headers.items()]
    lines += [f"/{ACCOUNT}{path}", "restype:container"]
    digest = hmac.new(base64.b64decode(KEY), "\n".join(lines).encode(), hashlib.sha256).digest()
    headers["Authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}"
    request = urllib.request.Request(
        f"{endpoint}{path}?restype=container", method="PUT", headers=headers
    )
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request).close()


def ready(url, **environment):
    print(json.dumps({"url": url, "environment": environment}), flush=True)


if __name__ == "__main__":
    {"moto": moto, "azurite": azurite}[sys.argv[1]]()
