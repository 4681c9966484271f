#!/usr/bin/env bash
# moto 5.2.1 (PyPI), the S3 server that many tests run against: of several PutObject requests that create one key at
# the same time with `If-None-Match: *`, more than one may be answered with 200, and the last of them is what is
# stored. Amazon S3 lets one succeed and answers the others with 412 or 409
# (https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html). moto looks whether the key exists
# and writes it in two steps, and its server has a thread for each request. Whoever tests a lock or a log on top of
# conditional writes with it sees two winners now and then, and takes it for an error of his own.
#
# Seen on 2026-11-28 with Python 3.11: "2 of 60 keys had two winners" with the interpreter's usual switch interval;
# with a short one, as below, within the first rounds.
#
# Exits with 0 if it is still so, with 1 if every key had one winner.
set -euo pipefail
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
python3 -m venv "$directory/venv"
"$directory/venv/bin/pip" install --quiet --disable-pip-version-check \
  'moto[s3,server]==5.2.1' 'boto3==1.44.8' 2>/dev/null
"$directory/venv/bin/python" - <<'PYTHON'
import concurrent.futures
import logging
import sys

import boto3
import botocore.exceptions
import moto
from moto.server import ThreadedMotoServer

ROUNDS, CREATORS = 500, 8
logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
# Threads take turns more often, as on a busy machine.
sys.setswitchinterval(1e-5)
server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
server.start()
client = boto3.client(
    "s3",
    endpoint_url="http://%s:%d" % server.get_host_and_port(),
    region_name="us-east-1",
    aws_access_key_id="test",
    aws_secret_access_key="test",
)
client.create_bucket(Bucket="bucket")


def create(key):
    try:
        client.put_object(Bucket="bucket", Key=key, Body=b"x", IfNoneMatch="*")
        return 1
    except botocore.exceptions.ClientError as error:
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] in (409, 412), error
        return 0


print("moto", moto.__version__)
with concurrent.futures.ThreadPoolExecutor(CREATORS) as pool:
    for number in range(ROUNDS):
        winners = sum(pool.map(create, [f"key-{number}"] * CREATORS))
        if winners > 1:
            print(f"key {number + 1}: {winners} of {CREATORS} creators were told that they had made it")
            sys.exit(0)
print(f"each of {ROUNDS} keys had one creator")
sys.exit(1)
PYTHON
