"""What a cell prints, by whatever means, is in the pipes when its end is told."""

from session import Case


class Output(Case):
    def test_prints_are_output_and_not_the_result(self):
        cell = self.succeeds("import sys\nprint('out')\nprint('err', file=sys.stderr)")
        self.assertEqual((cell.stdout, cell.stderr, cell.result), ("out\n", "err\n", None))

    def test_a_line_without_an_end_arrives(self):
        self.assertEqual(self.succeeds("print('no newline', end='')").stdout, "no newline")

    def test_a_megabyte_arrives_whole(self):
        self.assertEqual(self.succeeds("print('x' * (1 << 20))").stdout, "x" * (1 << 20) + "\n")

    def test_ten_thousand_lines_arrive_in_order(self):
        cell = self.succeeds("for n in range(10_000): print(n)")
        self.assertEqual(cell.stdout.split(), [str(n) for n in range(10_000)])

    def test_commands_and_prints_are_in_order(self):
        cell = self.succeeds("print('1', end=' ')\n!echo 2; echo oops >&2\nprint('3')")
        self.assertEqual((cell.stdout, cell.stderr), ("1 2\n3\n", "oops\n"))

    def test_what_was_printed_without_an_end_comes_before_what_a_child_prints(self):
        self.succeeds("import multiprocessing, os, subprocess, sys")
        for child in (
            "subprocess.run(['echo', 'b'])",
            "subprocess.run('echo b', shell=True)",
            "subprocess.Popen(['echo', 'b'], preexec_fn=lambda: None).wait()",
            "os.system('echo b')",
            "os.waitpid(os.posix_spawn('/bin/echo', ['echo', 'b'], {}), 0)",
            "pid = os.fork()\nif pid == 0:\n    print('b'); sys.stdout.flush(); os._exit(0)\nos.waitpid(pid, 0)",
            "p = multiprocessing.get_context('fork').Process(target=print, args=('b',)); p.start(); p.join()",
            "p = multiprocessing.get_context('spawn').Process(target=print, args=('b',)); p.start(); p.join()",
        ):
            cell = self.succeeds(f"print('a', end='')\n{child}\nprint('c');")
            self.assertEqual(cell.stdout, "ab\nc\n", child)

    def test_a_systems_function_can_be_sent_to_a_pool(self):
        cell = self.succeeds("import os, multiprocessing\nwith multiprocessing.Pool(1) as pool: print(pool.map(os.system, ['exit 3']))")
        self.assertEqual(cell.stdout, "[768]\n")

    def test_output_of_processes_counts(self):
        cell = self.succeeds("import subprocess\nsubprocess.run(['echo', 'hi']).returncode")
        self.assertEqual((cell.stdout, cell.text), ("hi\n", "0"))

    def test_what_c_code_printed_is_flushed(self):
        cell = self.succeeds("import ctypes\nctypes.CDLL(None).printf(b'from C'); None")
        self.assertEqual(cell.stdout, "from C")

    def test_bytes_and_descriptors_can_be_written(self):
        cell = self.succeeds("import os, sys\nsys.stdout.buffer.write(b'a')\nsys.stdout.flush()\nos.write(1, b'b'); None")
        self.assertEqual(cell.stdout, "ab")

    def test_half_characters_are_printed_escaped(self):
        self.assertEqual(self.succeeds("print('\\ud800 ž')").stdout, "\\ud800 ž\n")

    def test_warnings_and_logging_go_to_stderr(self):
        cell = self.succeeds("import logging, warnings\nwarnings.warn('careful')\nlogging.error('wrong')")
        self.assertIn("UserWarning: careful", cell.stderr)
        self.assertIn("ERROR:root:wrong", cell.stderr)
        self.assertEqual(self.succeeds("logging.error('again')").stderr, "ERROR:root:again\n")

    def test_a_redirection_ends_with_its_cell(self):
        self.succeeds("import io, sys\nprint('held', end='')\nsys.stdout = sys.stderr = io.StringIO()\nprint('lost')")
        self.assertEqual(self.succeeds("print('back')").stdout, "back\n")

    def test_what_was_printed_before_a_redirection_arrives(self):
        cell = self.succeeds("import io, sys\nprint('held', end='')\nsys.stdout = io.StringIO()")
        self.assertEqual(cell.stdout, "held")

    def test_closing_the_streams_does_not_break_the_next_cell(self):
        for code in (
            "import sys\nsys.stdout.close()\nsys.stderr.close()",
            "sys.stdout.detach()\nsys.stderr.detach(); None",
            "import io\nsys.stdout = io.TextIOWrapper(sys.stdout.buffer)",
            "del sys.stdout, sys.stderr",
            "sys.stdout = None",
        ):
            self.run_cell(code)
            cell = self.succeeds("print('out')\nprint('err', file=sys.stderr)")
            self.assertEqual((cell.stdout, cell.stderr), ("out\n", "err\n"), code)

    def test_what_a_cell_captures_is_not_its_output(self):
        self.assertEqual(self.succeeds("%%capture taken\nprint('x')").stdout, "")
        self.assertEqual(self.succeeds("taken.stdout").text, r"'x\n'")

    def test_printing_is_not_kept_in_memory(self):
        self.succeeds("print('x' * 1000)\n'x'")
        held = "get_ipython().history_manager.outputs"
        self.assertEqual(self.succeeds(f"sum(map(len, {held}.values()))").text, "0")


class Magics(Case):
    def test_timing(self):
        self.assertIn("1 loop each", self.succeeds("%timeit -n1 -r1 1").stdout)

    def test_a_cell_of_bash(self):
        self.assertEqual(self.succeeds("%%bash\necho $((6 * 7))").stdout, "42\n")

    def test_the_directory_before_is_where_the_session_started(self):
        self.succeeds("import os\nstart = os.getcwd()\n%cd -q /tmp\n%cd -q -")
        self.assertEqual(self.succeeds("os.getcwd() == start").text, "True")

    def test_changing_the_directory(self):
        self.succeeds("%cd /tmp")
        self.assertEqual(self.succeeds("import os\nos.getcwd()").text, "'/tmp'")

    def test_variables_in_commands_and_commands_in_variables(self):
        self.assertEqual(self.succeeds("x = 5\n!echo {x + 1} $x").stdout, "6 5\n")
        self.assertEqual(self.succeeds("lines = !echo a; echo b\nlines").text, "['a', 'b']")

    def test_a_failing_command_leaves_its_exit_code(self):
        self.succeeds("!exit 3")
        self.assertEqual(self.succeeds("_exit_code").text, "3")

    def test_an_unknown_magic_is_an_error(self):
        error = self.fails("%nosuch")
        self.assertEqual(error["name"], "UsageError")
        self.assertIn("%nosuch", error["message"])

    def test_resetting_forgets_the_variables(self):
        self.succeeds("x = 1")
        self.succeeds("%reset -f")
        self.assertEqual(self.fails("x")["name"], "NameError")
        self.assertEqual(self.succeeds("__name__").text, "'__main__'")

    def test_the_history_holds_the_session_only(self):
        self.assertEqual(self.succeeds("%history").stdout, "%history\n")
        self.assertEqual(self.succeeds("Out").text, "{}")
        self.assertEqual(self.succeeds("len(In)").text, "4")


class Debuggers(Case):
    def test_a_debugger_says_at_once_that_nobody_is_there(self):
        self.succeeds("import pdb\ndef f():\n    x = 1\n    1 / 0")
        self.fails("f()")
        for code in ("breakpoint()", "pdb.set_trace()", "pdb.run('f()')", "pdb.runcall(f)",
                     "try: f()\nexcept ZeroDivisionError as e: pdb.post_mortem(e.__traceback__)",
                     "from IPython.core.debugger import set_trace\nset_trace()\nx = 1", "%debug"):
            error = self.fails(code)
            self.assertEqual(error["name"], "EOFError", code)
            self.assertIn("standard input is not available here", error["message"], code)
            self.assertEqual(self.succeeds("x = 0\nfor n in range(3): x += n\nx").text, "3", code)

        self.assertIn("standard input is not available here", self.succeeds("%debug f()").stdout)

    def test_a_debugger_with_commands_of_its_own_works(self):
        cell = self.succeeds(
            "import io, pdb, sys\nsaid = io.StringIO()\n"
            "debugger = pdb.Pdb(stdin=io.StringIO('p 6 * 7\\nc\\n'), stdout=said)\n"
            "debugger.use_rawinput = False\ndebugger.run('x = 1')\n'42' in said.getvalue()"
        )
        self.assertEqual(cell.text, "True")
        self.assertEqual(self.succeeds("import os\nos.environ['PYTHONBREAKPOINT'] = '0'\nbreakpoint()\n1").text, "1")
