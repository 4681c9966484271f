"""langchain-azure-dynamic-sessions: SessionsBashTool."""

import io
import json
import unittest

import requests
from langchain_azure_dynamic_sessions import SessionsBashTool
from stack import AWKWARD_NAME, BINARY, SHELL_ENDPOINT, TOKEN, deleted, new_id


def tool(**settings):
    settings = {
        "pool_management_endpoint": SHELL_ENDPOINT,
        "access_token_provider": lambda: TOKEN,
        "session_id": new_id(endpoint=SHELL_ENDPOINT),
        **settings,
    }
    return SessionsBashTool(**settings)


class Commands(unittest.TestCase):
    def test_invoked_with_a_command_it_answers_json(self):
        answer = json.loads(tool().invoke("echo hello 日本"))
        self.assertEqual(answer, {"stdout": "hello 日本\n", "stderr": "", "exitCode": 0})

    def test_an_exit_status_is_a_number(self):
        answer = json.loads(tool().invoke("cat /nonexistent; exit 3"))
        self.assertEqual(answer["exitCode"], 3)
        self.assertIn("No such file or directory", answer["stderr"])

    def test_the_answer_has_the_fields_of_the_contract(self):
        bash = tool()
        answer = bash.execute("echo hi")
        self.assertEqual((answer["status"], answer["identifier"]), ("0", bash.session_id))
        self.assertEqual(answer["executionType"], "Synchronous")
        self.assertIsInstance(answer["result"]["executionTimeInMilliseconds"], int)

    def test_fenced_commands_run(self):
        answer = json.loads(tool().invoke("```bash\necho fenced\n```"))
        self.assertEqual(answer["stdout"], "fenced\n")

    def test_what_a_command_writes_is_there_for_the_next(self):
        bash = tool()
        bash.invoke("mkdir -p sub && echo kept > sub/kept.txt")
        answer = json.loads(bash.invoke("find . -name '*.txt' | xargs grep -c kept"))
        self.assertEqual(answer["stdout"], "1\n")


class Files(unittest.TestCase):
    def test_files_go_up_and_come_down(self):
        bash = tool()
        stored = bash.upload_file(data=io.BytesIO(BINARY), remote_file_path=AWKWARD_NAME)
        self.assertEqual((stored.filename, stored.size_in_bytes), (AWKWARD_NAME, len(BINARY)))
        bash.invoke("printf abc > made.txt")
        sizes = {file.filename: file.size_in_bytes for file in bash.list_files()}
        self.assertEqual(sizes, {AWKWARD_NAME: len(BINARY), "made.txt": 3})
        self.assertEqual(bash.download_file(remote_file_path=AWKWARD_NAME).read(), BINARY)
        self.assertEqual(bash.download_file(remote_file_path="made.txt").read(), b"abc")

    def test_a_missing_file_is_a_404(self):
        with self.assertRaises(requests.HTTPError) as caught:
            tool().download_file(remote_file_path="nowhere.txt")
        self.assertEqual(caught.exception.response.status_code, 404)


class Sessions(unittest.TestCase):
    def test_sessions_see_nothing_of_each_other(self):
        tool().invoke("echo x > secret.txt")
        self.assertEqual(tool().list_files(), [])

    def test_a_deleted_session_is_gone(self):
        bash = tool()
        session = bash.session_id
        bash.invoke("echo x > gone.txt")
        deleted(bash.delete_session)
        self.assertNotEqual(bash.session_id, session)
        self.assertEqual(tool(session_id=session).list_files(), [])

    def test_a_wrong_token_is_a_401(self):
        with self.assertRaises(requests.HTTPError) as caught:
            tool(access_token_provider=lambda: "wrong").execute("true")
        self.assertEqual(caught.exception.response.status_code, 401)


if __name__ == "__main__":
    unittest.main()
