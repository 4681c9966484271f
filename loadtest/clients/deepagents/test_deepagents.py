"""langchain-azure-dynamic-sessions: SessionsBashBackend, where agents of deepagents keep their files."""

import unittest
import warnings

from stack import AWKWARD_NAME, BINARY, SHELL_ENDPOINT, TOKEN, new_id

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from langchain_azure_dynamic_sessions.backends import SessionsBashBackend


def backend(session_id=None, token=TOKEN):
    return SessionsBashBackend(
        pool_management_endpoint=SHELL_ENDPOINT,
        session_id=session_id or new_id(endpoint=SHELL_ENDPOINT),
        access_token_provider=lambda: token,
    )


class Commands(unittest.TestCase):
    def test_what_is_printed_is_the_output(self):
        answer = backend().execute("echo hello 日本")
        self.assertEqual((answer.output, answer.exit_code), ("hello 日本\n", 0))
        self.assertFalse(answer.truncated)

    def test_a_failure_has_its_exit_status(self):
        answer = backend().execute("echo out; echo err >&2; exit 3")
        self.assertEqual((answer.output, answer.exit_code), ("out\nerr\n", 3))

    def test_a_wrong_token_is_a_refusal(self):
        with self.assertRaisesRegex(RuntimeError, "401"):
            backend(token="wrong").execute("true")


class Files(unittest.TestCase):
    """By commands: what the backend makes of each tool call of an agent."""

    def test_a_file_is_written_once_and_read_by_lines(self):
        bash = backend()
        self.assertIsNone(bash.write("/mnt/data/sub/a.txt", "one\ntwo\nthree").error)
        self.assertIn("already exists", bash.write("/mnt/data/sub/a.txt", "other").error)
        self.assertEqual(
            bash.read("/mnt/data/sub/a.txt").split("\n"),
            ["     1\tone", "     2\ttwo", "     3\tthree"],
        )
        self.assertEqual(bash.read("/mnt/data/sub/a.txt", offset=1, limit=1), "     2\ttwo")
        self.assertIn("not found", bash.read("/mnt/data/none.txt"))

    def test_a_file_is_edited(self):
        bash = backend()
        bash.write("/mnt/data/a.txt", "it's $HOME\nit's \"that\"\n")
        once = bash.edit("/mnt/data/a.txt", "$HOME", "`here`")
        self.assertEqual((once.error, once.occurrences), (None, 1))
        self.assertIn("multiple times", bash.edit("/mnt/data/a.txt", "it's", "is").error)
        every = bash.edit("/mnt/data/a.txt", "it's", "is", replace_all=True)
        self.assertEqual((every.error, every.occurrences), (None, 2))
        self.assertIn("not found", bash.edit("/mnt/data/a.txt", "none", "x").error)
        (content,) = bash.download_files(["/mnt/data/a.txt"])
        self.assertEqual(content.content, b'is `here`\nis "that"\n')

    def test_directories_are_listed_and_searched(self):
        bash = backend()
        bash.write("/mnt/data/a.py", "x = 1")
        bash.write("/mnt/data/sub/b.txt", "y")
        listed = {entry["path"]: entry["is_dir"] for entry in bash.ls_info("/mnt/data")}
        self.assertEqual(listed, {"a.py": False, "sub": True})
        (found,) = bash.glob_info("*.py", "/mnt/data")
        self.assertEqual(found, {"path": "a.py", "is_dir": False})


class Transfer(unittest.TestCase):
    def test_files_go_up_and_come_down(self):
        bash = backend()
        files = [("/mnt/data/all.bin", BINARY), (AWKWARD_NAME, b"odd")]
        stored = bash.upload_files(files)
        self.assertEqual([file.error for file in stored], [None, None])
        loaded = bash.download_files([path for path, _ in files])
        self.assertEqual([(file.path, file.content) for file in loaded], files)
        self.assertEqual(bash.execute("wc -c < all.bin").output.strip(), str(len(BINARY)))

    def test_a_missing_file_is_told(self):
        (missing,) = backend().download_files(["/mnt/data/none.txt"])
        self.assertEqual(missing.error, "file_not_found")


if __name__ == "__main__":
    unittest.main()
