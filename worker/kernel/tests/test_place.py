"""Where the code of a session begins, and what it finds and leaves there."""

import os
import pathlib
import shutil
import sys

from session import Case, Session

DATA = pathlib.Path("/mnt/data")
# What cells need of libraries after a module of every name lies beside them.
ORDINARY = (
    "import collections, csv, json, random, statistics, subprocess, sys, tempfile, xml.dom.minidom, zoneinfo",
    "import matplotlib.pyplot as plt, numpy as np, pandas as pd",
    "frame = pd.DataFrame({'a': [1, 2]})\nframe.to_html(), frame.to_parquet('/tmp/a.parquet')",
    "frame.to_excel('/tmp/a.xlsx')",
    "frame.plot()\nplt.savefig('/tmp/a.png')",
    "import scipy.interpolate, sklearn.cluster",
    "import multiprocessing\nmultiprocessing.get_context('fork').Pool(1).map(abs, [-1])",
    "random.random(), json.dumps([1]), subprocess.run(['true'])",
    "%timeit -n1 -r1 1",
    "await __import__('asyncio').sleep(0)",
)


class Place(Case):
    def setUp(self):
        self.empty()
        self.addCleanup(self.empty)
        super().setUp()

    def empty(self):
        for entry in DATA.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def listed(self):
        return sorted(str(entry.relative_to(DATA)) for entry in DATA.rglob("*"))

    def test_files_are_read_and_written_by_their_names(self):
        (DATA / "sales.csv").write_text("a,b\n1,2\n")
        self.succeeds("import pandas as pd\npd.read_csv('sales.csv').to_csv('result.csv')")
        self.succeeds("import matplotlib.pyplot as plt\nplt.plot([1])\nplt.savefig('chart.png')")
        self.assertEqual(self.listed(), ["chart.png", "result.csv", "sales.csv"])

    def test_programs_and_modules_leave_nothing_but_what_they_write(self):
        (DATA / "package").mkdir()
        (DATA / "package/__init__.py").write_text("")
        (DATA / "package/part.py").write_text("def double(x):\n    return 2 * x\n")
        (DATA / "mymodule.py").write_text("def triple(x):\n    return 3 * x\n")
        (DATA / "report.py").write_text("import mymodule\nprint(mymodule.triple(14))\n")
        before = self.listed()
        self.assertEqual(self.succeeds("import mymodule\nmymodule.triple(14)").text, "42")
        self.assertEqual(self.succeeds("from package.part import double\ndouble(21)").text, "42")
        self.assertEqual(self.succeeds("%run report.py").stdout, "42\n")
        self.assertEqual(self.succeeds("!python3 report.py").stdout, "42\n")
        spawn = (
            "import multiprocessing\n"
            "with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
            "    print(pool.map(double, [21]))"
        )
        self.assertEqual(self.succeeds(spawn).stdout, "[42]\n")
        self.assertEqual(self.listed(), before)

    def test_no_module_beside_the_code_takes_the_place_of_a_librarys(self):
        installed = {
            entry.removesuffix(".py")
            for path in sys.path
            if os.path.isdir(path)
            for entry in os.listdir(path)
            if entry.removesuffix(".py").isidentifier()
        }
        for name in {*sys.stdlib_module_names, *installed}:
            (DATA / f"{name}.py").write_text("raise SystemError('the wrong module')\n")
        # One that begins now, as after a restart, and one that rehearses first.
        spare = Session()
        self.addCleanup(spare.close)
        spare.wait_until_ready_for_a_cell()
        new = Session()
        self.addCleanup(new.close)
        for session in (new, spare):
            for cell in ORDINARY:
                error = session.run(cell).error
                self.assertIsNone(error, error and error["traceback"])
            self.assertEqual(session.run("1 / 0").error["name"], "ZeroDivisionError")
            self.assertNotIn("frame", session.snapshot().lost)

    def test_a_module_of_the_sessions_own_is_found_where_the_code_has_gone(self):
        (DATA / "sub").mkdir()
        (DATA / "sub/inner.py").write_text("x = 42\n")
        self.succeeds("%cd sub")
        self.assertEqual(self.succeeds("import inner\ninner.x").text, "42")
        self.succeeds("%cd -")
        self.assertEqual(self.succeeds("import os\nos.getcwd()").text, "'/mnt/data'")

    def test_a_directory_that_is_removed_breaks_nothing(self):
        removes = "import os\nos.mkdir('gone'); os.chdir('gone'); os.rmdir('/mnt/data/gone')\n"
        error = self.fails(removes + "1 / 0")
        self.assertEqual(error["name"], "ZeroDivisionError")
        self.assertIn("1 / 0", error["traceback"])
        after = self.succeeds("os.getcwd()")
        self.assertEqual(after.text, "'/mnt/data'")
        self.assertIn("removed", after.stderr)
        self.assertEqual(self.succeeds("!pwd").stdout, "/mnt/data\n")
        self.assertEqual(self.succeeds("1").stderr, "")
        # In the very cell, too.
        told = self.succeeds(removes + "import colorsys, pandas as pd\nprint(pd.DataFrame([1]).size)")
        self.assertEqual(told.stdout, "1\n")

    def test_a_session_that_closes_its_directory_to_itself_goes_on(self):
        self.addCleanup(DATA.chmod, 0o700)
        self.succeeds(
            "import os\nos.mkdir('gone'); os.chdir('gone'); os.rmdir('/mnt/data/gone')\nos.chmod('/mnt/data', 0)"
        )
        told = self.run_cell("os.getcwd()")
        self.assertEqual(told.text, "'/'")
        self.assertIn("removed", told.stderr)
