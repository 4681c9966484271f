"""Environment variables of single runs, and standard input."""

from session import Case


class Environment(Case):
    def given(self, code, **environment):
        self.session.begin(code, environment)
        return self.session.end()

    def test_a_cell_and_its_subprocesses_have_it_and_the_next_has_not(self):
        self.succeeds("import os, subprocess\nos.environ['OLD'] = 'old'")
        told = self.given("print(os.environ['A'], flush=True)\n!echo $A $OLD", A="ž 1", OLD="new")
        self.assertEqual(told.stdout, "ž 1\nž 1 new\n")
        after = self.succeeds("print(os.environ.get('A'), os.environ['OLD'])\n!echo [$A]")
        self.assertEqual(after.stdout, "None old\n[]\n")

    def test_what_a_cell_sets_itself_stays(self):
        self.given("import os\nos.environ['OWN'] = '1'; os.environ['A'] = '2'", A="1")
        after = self.succeeds("print(os.environ['OWN'], os.environ.get('A'))")
        self.assertEqual(after.stdout, "1 None\n")

    def test_it_goes_after_a_failure_and_after_everything_was_removed(self):
        self.assertEqual(self.given("1 / 0", A="1").error["name"], "ZeroDivisionError")
        self.given("import os\nos.environ.clear()", A="1")
        self.assertEqual(self.succeeds("import os\nprint(os.environ.get('A'))").stdout, "None\n")

    def test_a_command_has_it(self):
        frame = {"type": "command", "command": "echo $A", "environment": {"A": "1"}}
        self.session.command(frame)
        self.assertEqual(self.session.end().stdout, "1\n")


class Input(Case):
    def test_every_way_to_ask_for_input_fails_at_once_and_says_why(self):
        for code in (
            "input()",
            "input('name? ')",
            "import sys; sys.stdin.read()",
            "import sys; sys.stdin.readline()",
            "import sys; sys.stdin.readlines()",
            "import sys; list(sys.stdin)",
            "import sys; next(sys.stdin)",
            "import fileinput; list(fileinput.input('-'))",
        ):
            error = self.fails(code)
            self.assertEqual(error["name"], "EOFError", code)
            self.assertIn("not available here", error["message"], code)

    def test_programs_find_its_end(self):
        self.assertEqual(self.succeeds("!cat; echo over").stdout, "over\n")
