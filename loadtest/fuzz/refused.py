"""A check for callers without rights: nothing is done for them, whatever they ask."""

import os

import schemathesis

EXPECTED = int(os.environ["EXPECTED_STATUS"])


@schemathesis.check
def refused(ctx, response, case):
    assert response.status_code == EXPECTED, f"{response.status_code} instead of {EXPECTED}"
