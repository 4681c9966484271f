"""File names that every client gets back as they were, and the judge of programs that try them."""

import json
import subprocess

from stack import ENDPOINT, TOKEN, new_id

NAMES = [
    "report%20final.csv",
    "100%25.txt",
    "100%.txt",
    "a%22b.txt",
    "a%2Fb.txt",
    "Résumé (final) 日本.txt",
    "semi;colon.txt",
    "plus+and space.txt",
    "back\\slash.txt",
    'quote".txt',
]


def assert_kept(test, command, environment, names=NAMES):
    """The program uploads a file under each name, with the name for its contents, and reads it again. It prints a
    line of JSON for each: the name that the answer told, and the contents."""
    asked = {"endpoint": ENDPOINT, "token": TOKEN, "session": new_id(), "names": names}
    ran = subprocess.run(
        command, input=json.dumps(asked), capture_output=True, text=True, timeout=120, env=environment
    )
    test.assertEqual(ran.returncode, 0, ran.stderr)
    told = [json.loads(line) for line in ran.stdout.splitlines()]
    test.assertEqual(told, [[name, name] for name in names])
