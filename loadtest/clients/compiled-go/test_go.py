"""Go's own HTTP client."""

import os
import pathlib
import sys
import unittest

import names


class Go(unittest.TestCase):
    def test_gets_its_own_names_back(self):
        program = pathlib.Path(__file__).with_name("main.go")
        go = pathlib.Path(sys.executable).with_name("go")
        environment = os.environ | {
            "GOCACHE": str(pathlib.Path(sys.prefix) / "go-cache"),
            "GOTOOLCHAIN": "local",
            "GOPROXY": "off",
            "GOTELEMETRY": "off",
        }
        names.assert_kept(self, [go, "run", program], environment)
