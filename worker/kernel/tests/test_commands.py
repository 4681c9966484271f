"""Shell commands."""

import session
import hearth_frames


class Commands(session.Case):
    """As a session of a pool of shells runs them."""

    def begin(self, command):
        self.session.cells += 1
        frame = {"type": "command", "id": self.session.cells, "command": command}
        self.session.socket.sendall(hearth_frames.encode(frame))

    def run_command(self, command):
        """Status, stdout and stderr."""
        self.begin(command)
        return self.ended()

    def ended(self):
        cell = self.session.end()
        return cell.status, cell.stdout, cell.stderr

    def test_a_command_prints_and_has_a_status(self):
        self.assertEqual(self.run_command("echo out; echo err >&2; exit 3"), (3, "out\n", "err\n"))
        self.assertEqual(self.run_command("true"), (0, "", ""))
        self.assertEqual(self.run_command("nonesuch")[0], 127)

    def test_one_that_a_signal_ended_has_128_and_its_number(self):
        self.assertEqual(self.run_command("kill -9 $$")[0], 137)
        self.assertEqual(self.run_command("kill -TERM $$")[0], 143)

    def test_only_files_and_background_processes_last(self):
        self.run_command("cd /tmp; x=1; echo kept > /mnt/data/kept; sleep 600 & echo $! > /mnt/data/pid")
        status, printed, _ = self.run_command('pwd; echo "[$x]"; cat kept; kill $(cat pid)')
        self.assertEqual((status, printed), (0, "/mnt/data\n[]\nkept\n"))

    def test_a_background_process_does_not_hold_the_answer_up(self):
        self.assertEqual(self.run_command("yes | head -c 100; sleep 600 &")[0], 0)

    def test_an_interrupt_ends_a_command_and_what_it_started(self):
        self.begin("(trap '' INT; sleep 601) & echo $! > pid; trap '' INT; echo begun; sleep 602; sleep 603")
        self.session.end(until="begun")
        self.session.interrupt()
        status, _, _ = self.ended()
        self.assertEqual(status, 137)
        self.assertEqual(self.run_command("kill -0 $(cat pid) 2>/dev/null; echo $?")[1], "1\n")
        self.assertEqual(self.run_command("echo next"), (0, "next\n", ""))

    def test_a_script_longer_than_an_argument_may_be_runs(self):
        script = "cat <<'END' | wc -c\n" + "x" * 300_000 + "\nEND\nexit 4"
        self.assertEqual(self.run_command(script)[:2], (4, "300001\n"))

    def test_a_shell_that_cannot_be_started_has_a_status_too(self):
        status, _, complaint = self.run_command("echo \0")
        self.assertEqual(status, 126)
        self.assertIn("null byte", complaint)

    def test_standard_input_is_empty(self):
        self.assertEqual(self.run_command("cat; wc -c"), (0, "0\n", ""))

    def test_the_tools_that_agents_use_are_there(self):
        tools = "awk base64 cat cut diff find grep gzip head ls python3 sed sha256sum sort stat tail tar tr wc xargs"
        missing = self.run_command(f"for tool in {tools}; do command -v $tool >/dev/null || echo $tool; done")
        self.assertEqual(missing, (0, "", ""))

    def test_python_draws_without_a_notebook(self):
        code = "import matplotlib.pyplot as p; p.plot([1]); p.savefig('/mnt/data/a.png')"
        self.assertEqual(self.run_command(f'python3 -c "{code}"')[0], 0)
