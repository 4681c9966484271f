#!/usr/bin/python3 -IS
"""Starts uv, which knows of one directory of packages, where a session has two: what the image has is there
already, and what is installed goes where pip puts it. An environment is uv's own affair."""

import os
import re
import sys

UV = "/usr/local/lib/uv/uv"
# Names of the packages of the image, one a line.
PRESENT = "/usr/local/lib/uv/present.txt"
OWN = "/home/session/.local"
# What says of which Python it shall be.
PLACES = ("-p", "--python", "-t", "--target", "--prefix")


def is_of_a_place(arguments):
    named = any(one.split("=")[0] in PLACES or re.match("-p.", one) for one in arguments)
    return named or is_in_an_environment()


def is_in_an_environment():
    try:
        directory = os.getcwd()
    except FileNotFoundError:
        directory = "/"
    while not os.path.exists(os.path.join(directory, ".venv/pyvenv.cfg")):
        if directory == "/":
            return "VIRTUAL_ENV" in os.environ
        directory = os.path.dirname(directory)
    return True


def plain(name):
    return re.sub("[-_.]+", "-", name).lower()


def present_but(arguments):
    """A file of the image's packages, without those that are given as wheels."""
    wheels = {plain(os.path.basename(one).split("-")[0]) for one in arguments if one.endswith(".whl")}
    with open(PRESENT, encoding="utf-8") as file:
        names = [line for line in file if plain(line.strip()) not in wheels]
    descriptor = os.memfd_create("present", 0)
    os.write(descriptor, "".join(names).encode())
    return f"/proc/self/fd/{descriptor}"


def main(arguments):
    if arguments[:1] == ["pip"] and len(arguments) > 1 and not is_of_a_place(arguments):
        command, rest = arguments[1], [one for one in arguments[2:] if one not in ("--system", "--user")]
        if command in ("install", "uninstall"):
            os.environ["UV_EXCLUDE"] = present_but(rest)
            arguments = ["pip", command, "--system", "--prefix", OWN, *rest]
        elif command in ("list", "show", "freeze", "check"):
            # Of both, which pip knows.
            os.execv("/usr/bin/python3", ["python3", "-m", "pip", command, *rest])
    os.execv(UV, ["uv", *arguments])


main(sys.argv[1:])
