"""What a session installs itself, and where cells find it."""

import importlib.metadata
import inspect
import pathlib
import shutil
import site
import sys

from session import Case, Session

DIRECTORY = pathlib.Path(site.getusersitepackages())
# What the kernel does by itself, and what it may import for that only then.
ITS_OWN = (
    "1 + 1",
    "await __import__('asyncio').sleep(0)",
    "import matplotlib.pyplot as plt, numpy as np, pandas as pd\nplt.plot([1])\nplt.show()",
    "pd.DataFrame({'a': [1, 2]})",
    "%timeit -n1 -r1 1",
    "display(1)",
    "!true",
)


class Packages(Case):
    def setUp(self):
        self.empty()
        self.addCleanup(self.empty)
        super().setUp()

    def empty(self):
        shutil.rmtree(DIRECTORY, ignore_errors=True)

    def test_what_was_missed_is_found_once_it_is_there(self):
        self.assertEqual(self.fails("import late")["name"], "ModuleNotFoundError")
        (DIRECTORY / "late.py").write_text("x = 42")
        self.assertEqual(self.succeeds("import late\nlate.x").text, "42")
        shutil.rmtree(DIRECTORY)
        self.assertEqual(self.fails("import another")["name"], "ModuleNotFoundError")
        DIRECTORY.mkdir()
        (DIRECTORY / "another.py").write_text("x = 43")
        self.assertEqual(self.succeeds("import another\nanother.x").text, "43")

    def test_what_lies_elsewhere_is_found_once_a_file_tells_of_it(self):
        elsewhere = DIRECTORY / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "linked.py").write_text("x = 42")
        self.assertEqual(self.fails("import linked")["name"], "ModuleNotFoundError")
        (DIRECTORY / "linked.pth").write_text(f"{elsewhere}\nimport nosuch\n")
        self.assertEqual(self.succeeds("import linked\nlinked.x").text, "42")
        self.assertEqual(self.fails("import unlinked")["name"], "ModuleNotFoundError")

    def test_a_file_is_run_once_and_old_finders_are_passed_over(self):
        self.succeeds("import sys\nsys.meta_path.append(object())\nruns = sys.runs = []")
        for number in range(3):
            (DIRECTORY / f"{number}.pth").write_text(f"import sys; sys.runs.append({number})\n")
            self.assertEqual(self.fails(f"import unknown{number}")["name"], "ModuleNotFoundError")
        self.assertEqual(self.succeeds("runs").text, "[0, 1, 2]")

    def test_who_hands_on_the_interpreters_flags_hands_on_the_packages(self):
        (DIRECTORY / "late.py").write_text("x = 42")
        code = """import subprocess, sys
            flags = subprocess._args_from_interpreter_flags()
            told = subprocess.run([sys.executable, *flags, "-c", "import late; print(late.x)"], capture_output=True)
            told.stdout or told.stderr"""
        self.assertEqual(self.succeeds(inspect.cleandoc(code)).text, repr(b"42\n"))
        wanted = "sys.flags.isolated, sys.flags.no_user_site, sys.flags.ignore_environment, sys.flags.safe_path"
        self.assertEqual(self.succeeds(wanted).text, "(0, 0, 0, False)")
        self.assertEqual(self.succeeds("tuple(sys.flags)[:2], len(sys.flags)").text, "((0, 0), 18)")

    def test_it_comes_after_the_standard_library_and_before_the_systems(self):
        (DIRECTORY / "tabulate.py").write_text("x = 42")
        (DIRECTORY / "colorsys.py").write_text("raise SystemError('the wrong module')")
        self.assertEqual(self.succeeds("import colorsys, tabulate\ntabulate.x").text, "42")

    def test_no_module_there_breaks_a_kernel(self):
        modules = {*sys.stdlib_module_names, *importlib.metadata.packages_distributions(), "sitecustomize"}
        for name in modules:
            (DIRECTORY / f"{name}.py").write_text("raise SystemError('the wrong module')\n")
        spare = Session()
        self.addCleanup(spare.close)
        spare.wait_until_ready_for_a_cell()
        new = Session()
        self.addCleanup(new.close)
        for session in (new, spare):
            for cell in ITS_OWN:
                error = session.run(cell).error
                self.assertIsNone(error, error and error["traceback"])
            self.assertEqual(session.run("1 / 0").error["name"], "ZeroDivisionError")
            session.run("kept = pd.Series([1])")
            self.assertNotIn("kept", session.snapshot().lost)

    def test_packages_are_named_as_lost(self):
        self.succeeds("import json\nkept = 1")
        self.assertEqual(self.session.snapshot().lost, [])
        (DIRECTORY / "my_package-1.0.dist-info").mkdir()
        (DIRECTORY / "my_package").mkdir()
        self.assertEqual(self.session.snapshot().lost, ["package my_package"])
        shutil.rmtree(DIRECTORY)
        self.assertEqual(self.session.snapshot().lost, [])
