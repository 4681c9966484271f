"""How a failing cell tells why."""

from session import Case


class Errors(Case):
    def test_a_traceback_is_plain_and_shows_the_line(self):
        error = self.fails("x = 1\nx / 0  # here")
        self.assertEqual((error["name"], error["message"]), ("ZeroDivisionError", "division by zero"))
        self.assertIn("----> 2 x / 0  # here", error["traceback"])
        self.assertTrue(error["traceback"].rstrip().endswith("ZeroDivisionError: division by zero"))
        self.assertNotIn("\x1b", error["traceback"])
        self.assertNotIn("interactiveshell", error["traceback"])

    def test_nothing_of_an_error_is_output(self):
        cell = self.run_cell("1 / 0")
        self.assertEqual((cell.stdout, cell.stderr, cell.result), ("", "", None))

    def test_nothing_of_the_kernel_is_shown(self):
        for code in (
            "import subprocess\nsubprocess.run('no such program')",
            "import requests\nrequests.get('http://192.0.2.1')",
            "input()",
            "import asyncio\nasyncio.run(asyncio.sleep(1, 2, 3))",
        ):
            told = self.fails(code)["traceback"]
            self.assertNotIn("hearth", told)
            self.assertIn(f"----> {len(code.splitlines())} ", told)

    def test_a_syntax_error_points_at_the_place(self):
        error = self.fails("x = 1\ndef broken(:\n    pass")
        self.assertEqual(error["name"], "SyntaxError")
        self.assertIn("line 2", error["traceback"])
        self.assertIn("def broken(:", error["traceback"])

    def test_an_indentation_error_is_named(self):
        self.assertEqual(self.fails("if True:\nx")["name"], "IndentationError")

    def test_return_outside_of_a_function_is_a_syntax_error(self):
        self.assertEqual(self.fails("return 1")["name"], "SyntaxError")

    def test_an_error_in_a_function_of_an_earlier_cell_shows_both_places(self):
        self.succeeds("def half(x):\n    return x / 0")
        error = self.fails("# halves\nhalf(2)")
        self.assertIn("----> 2 half(2)", error["traceback"])
        self.assertIn("----> 2     return x / 0", error["traceback"])

    def test_variables_survive_an_error(self):
        self.fails("x = 41\n1 / 0")
        self.assertEqual(self.succeeds("x + 1").text, "42")

    def test_what_came_before_an_error_was_printed(self):
        self.assertEqual(self.run_cell("print('before')\n1 / 0").stdout, "before\n")

    def test_exceptions_whose_text_fails_are_named(self):
        error = self.fails("class Bad(Exception):\n    def __str__(self): 1 / 0\nraise Bad()")
        self.assertEqual((error["name"], error["message"]), ("Bad", "<its text cannot be shown>"))
        self.assertIn("raise Bad()", error["traceback"])
        error = self.fails("class Bad(Exception):\n    def __repr__(self): 1 / 0\nraise Bad('x')")
        self.assertEqual((error["name"], error["message"]), ("Bad", "x"))

    def test_a_class_that_lies_about_its_name_is_told_by_its_own(self):
        error = self.fails(
            "class Meta(type):\n    __name__ = property(lambda self: 1 / 0)\n"
            "class Odd(Exception, metaclass=Meta): pass\nraise Odd('x')"
        )
        self.assertEqual((error["name"], error["message"]), ("Odd", "x"))

    def test_a_chain_of_exceptions_is_shown_whole(self):
        error = self.fails("try:\n    {}['key']\nexcept KeyError as e:\n    raise ValueError('outer') from e")
        self.assertEqual(error["name"], "ValueError")
        for part in ("KeyError: 'key'", "direct cause", "ValueError: outer"):
            self.assertIn(part, error["traceback"])

    def test_a_group_of_exceptions_is_shown_whole(self):
        cell = self.run_cell("raise ExceptionGroup('several', [ValueError('a'), TypeError('b')])")
        self.assertEqual((cell.error["name"], cell.stderr), ("ExceptionGroup", ""))
        for part in ("line 1", "ValueError: a", "TypeError: b"):
            self.assertIn(part, cell.error["traceback"])
        self.assertNotIn("interactiveshell", cell.error["traceback"])

    def test_an_exception_that_is_its_own_context_does_not_hang(self):
        self.assertEqual(
            self.fails("a, b = ValueError(), KeyError()\na.__context__, b.__context__ = b, a\nraise a")["name"],
            "ValueError",
        )

    def test_endless_recursion_is_an_error(self):
        self.assertEqual(self.fails("def f(): return f()\nf()")["name"], "RecursionError")
        self.assertEqual(self.succeeds("1").text, "1")

    def test_a_failed_assertion_shows_its_text(self):
        self.assertEqual(self.fails("assert 1 == 2, 'not equal'")["message"], "not equal")

    def test_an_error_of_a_script_is_told_on_stderr(self):
        cell = self.succeeds("open('script.py', 'w').write('1 / 0\\n')\n%run script.py")
        self.assertIn("ZeroDivisionError", cell.stderr)

    def test_the_last_error_can_be_shown_again(self):
        self.fails("1 / 0")
        self.assertIn("ZeroDivisionError: division by zero", self.succeeds("%tb").stderr)


LIBRARY = """
def down(n, then):
    if n == 0: return then()
    return [down, up][n % 2](n - 1, then)
def up(n, then):
    return down(n, then)
def fail(): raise KeyError('deep inside')
"""


class LongOnes(Case):
    def setUp(self):
        super().setUp()
        self.succeeds(
            "import os, sys\nos.makedirs('/tmp/site-packages/deep', exist_ok=True)\n"
            f"open('/tmp/site-packages/deep/__init__.py', 'w').write({LIBRARY!r})\n"
            "sys.path.append('/tmp/site-packages')\nimport deep"
        )

    def test_of_many_frames_of_libraries_the_users_and_the_last_remain(self):
        self.succeeds("def callback():\n    return deep.down(20, deep.fail)  # mine")
        trace = self.fails("deep.down(20, callback)  # here")["traceback"]
        for part in ("deep.down(20, callback)  # here", "# mine", "def fail(): raise KeyError", "KeyError: 'deep inside'"):
            self.assertIn(part, trace)
        self.assertEqual(trace.count("of libraries left out]"), 2)
        self.assertLess(trace.count("site-packages"), 9)

    def test_a_chain_of_long_ones_is_cut_in_each(self):
        code = "try: deep.down(20, deep.fail)\nexcept KeyError as e: deep.down(20, lambda: 1 / 0)"
        trace = self.fails(code)["traceback"]
        self.assertEqual(trace.count("of libraries left out]"), 2)
        self.assertIn("KeyError: 'deep inside'", trace)

    def test_a_short_one_is_whole(self):
        self.assertNotIn("left out", self.fails("deep.down(2, deep.fail)")["traceback"])
