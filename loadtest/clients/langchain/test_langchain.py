"""langchain-azure-dynamic-sessions: SessionsPythonREPLTool."""

import base64
import io
import json
import unittest

import requests
from langchain_azure_dynamic_sessions import SessionsPythonREPLTool
from stack import (
    AWKWARD_NAME,
    BINARY,
    ENDPOINT,
    PLOT,
    PNG,
    TOKEN,
    deleted,
    directory,
    local_file,
    new_id,
)


def tool(**settings):
    settings = {
        "pool_management_endpoint": ENDPOINT,
        "access_token_provider": lambda: TOKEN,
        "session_id": new_id(),
        **settings,
    }
    return SessionsPythonREPLTool(**settings)


class Code(unittest.TestCase):
    def test_what_is_printed_is_stdout(self):
        answer = tool().execute("for word in ('hello', '日本'):\n    print(word)")
        self.assertEqual(answer["status"], "Success")
        self.assertEqual(answer["stdout"], "hello\n日本\n")
        self.assertEqual(answer["stderr"], "")
        self.assertEqual(answer["result"], "")
        self.assertIsInstance(answer["executionTimeInMilliseconds"], int)

    def test_the_last_expression_is_the_result(self):
        self.assertEqual(tool().execute("6 * 7")["result"], 42)

    def test_a_dictionary_is_its_repr(self):
        self.assertEqual(tool().execute("{'a': 1}")["result"], "{'a': 1}")

    def test_what_is_written_to_stderr_is_no_failure(self):
        answer = tool().execute("import sys\nprint('careful', file=sys.stderr)")
        self.assertEqual((answer["status"], answer["stderr"]), ("Success", "careful\n"))

    def test_an_error_keeps_what_was_printed_before(self):
        answer = tool().execute("print('before')\n1 / 0")
        self.assertEqual((answer["status"], answer["stdout"]), ("Failure", "before\n"))
        self.assertIn("ZeroDivisionError: division by zero", answer["stderr"])

    def test_code_that_does_not_parse_is_a_syntax_error(self):
        answer = tool().execute("def f(:")
        self.assertEqual(answer["status"], "Failure")
        self.assertIn("SyntaxError", answer["stderr"])

    def test_a_plot_comes_back_as_an_image(self):
        result = tool().execute(PLOT)["result"]
        self.assertEqual((result["type"], result["format"]), ("image", "png"))
        self.assertTrue(base64.b64decode(result["base64_data"]).startswith(PNG))


class Tool(unittest.TestCase):
    """As an agent uses it."""

    def call(self, code):
        arguments = {"python_code": code}
        return tool().invoke(
            {"name": "Python_REPL", "args": arguments, "id": "1", "type": "tool_call"}
        )

    def test_invoked_with_code_it_answers_json(self):
        answer = json.loads(tool().invoke("print('hello')\n1 + 1"))
        self.assertEqual(answer, {"result": 2, "stdout": "hello\n", "stderr": ""})

    def test_fenced_code_runs(self):
        answer = json.loads(tool().invoke("```python\nprint('fenced')\n```"))
        self.assertEqual(answer["stdout"], "fenced\n")

    def test_a_tool_call_is_answered_with_message_and_artifact(self):
        message = self.call("6 * 7")
        self.assertEqual(json.loads(message.content)["result"], 42)
        self.assertEqual(message.artifact["status"], "Success")

    def test_an_image_is_in_the_artifact_only(self):
        message = self.call(PLOT)
        self.assertEqual(json.loads(message.content)["result"], {"type": "image", "format": "png"})
        self.assertTrue(base64.b64decode(message.artifact["result"]["base64_data"]).startswith(PNG))


class Sessions(unittest.TestCase):
    def test_state_is_kept_between_calls(self):
        python = tool()
        python.execute("import math\ndef root(n): return math.isqrt(n)\nx = 41")
        self.assertEqual(python.execute("x + root(1)")["result"], 42)

    def test_state_is_kept_after_an_error(self):
        python = tool()
        python.execute("kept = 11\nraise ValueError('boom')")
        self.assertEqual(python.execute("kept")["result"], 11)

    def test_two_tools_of_one_session_share_it(self):
        session = new_id()
        tool(session_id=session).execute("shared = 'abc'")
        answer = tool(session_id=session).execute("print(shared)")
        self.assertEqual(answer["stdout"], "abc\n")

    def test_sessions_see_nothing_of_each_other(self):
        mine = tool()
        mine.execute("secret = 1\nopen('/mnt/data/secret.txt', 'w').close()")
        other = tool()
        self.assertIn("NameError", other.execute("secret")["stderr"])
        self.assertEqual(other.list_files(), [])

    def test_an_identifier_of_odd_characters_is_one_session(self):
        session = new_id("user|1-(a){b}[c];%#&")
        tool(session_id=session).execute("v = 7")
        self.assertEqual(tool(session_id=session).execute("v")["result"], 7)

    def test_a_deleted_session_is_gone(self):
        python = tool()
        session = python.session_id
        python.execute("gone = 1\nopen('/mnt/data/gone.txt', 'w').close()")
        deleted(python.delete_session)
        self.assertNotEqual(python.session_id, session)
        again = tool(session_id=session)
        self.assertEqual(again.list_files(), [])
        self.assertIn("NameError", again.execute("gone")["stderr"])

    def test_the_context_manager_deletes_the_session(self):
        session = new_id()

        def use():
            with tool(session_id=session) as python:
                python.execute("gone = 1")

        deleted(use)
        self.assertIn("NameError", tool(session_id=session).execute("gone")["stderr"])

    def test_a_session_may_end_with_each_invocation(self):
        session = new_id()
        python = tool(session_id=session, delete_session_after_invocation=True)
        deleted(lambda: python.invoke("gone = 1"))
        self.assertIn("NameError", tool(session_id=session).execute("gone")["stderr"])


class Files(unittest.TestCase):
    def test_an_upload_is_answered_with_name_and_size(self):
        answer = tool().upload_file(data=io.BytesIO(b"hello world"), remote_file_path="a.txt")
        self.assertEqual((answer.filename, answer.size_in_bytes), ("a.txt", 11))
        self.assertEqual(answer.full_path, "/mnt/data/a.txt")

    def test_a_local_file_keeps_its_name(self):
        path = local_file(self, "local.csv", b"a,b\n1,2\n")
        answer = tool().upload_file(local_file_path=path)
        self.assertEqual((answer.filename, answer.size_in_bytes), ("local.csv", 8))

    def test_code_reads_what_was_uploaded(self):
        python = tool()
        file = python.upload_file(data=io.BytesIO(b"[1, 10]"), remote_file_path="numbers.json")
        answer = python.execute(f"import json\nsum(json.load(open({file.full_path!r})))")
        self.assertEqual(answer["result"], 11)

    def test_what_code_writes_can_be_downloaded(self):
        python = tool()
        python.execute("open('/mnt/data/out.txt', 'w').write('from code')")
        self.assertEqual(python.download_file(remote_file_path="out.txt").read(), b"from code")

    def test_bytes_come_back_as_they_went(self):
        python = tool()
        python.upload_file(data=io.BytesIO(BINARY), remote_file_path="all.bin")
        path = directory(self) / "all.bin"
        python.download_file(remote_file_path="all.bin", local_file_path=str(path))
        self.assertEqual(path.read_bytes(), BINARY)

    def test_an_empty_file_is_a_file(self):
        python = tool()
        answer = python.upload_file(data=io.BytesIO(b""), remote_file_path="empty")
        self.assertEqual(answer.size_in_bytes, 0)
        self.assertEqual(python.download_file(remote_file_path="empty").read(), b"")

    def test_an_awkward_name_is_the_same_everywhere(self):
        python = tool()
        answer = python.upload_file(data=io.BytesIO(b"odd"), remote_file_path=AWKWARD_NAME)
        self.assertEqual(answer.filename, AWKWARD_NAME)
        self.assertEqual([file.filename for file in python.list_files()], [AWKWARD_NAME])
        self.assertEqual(python.download_file(remote_file_path=AWKWARD_NAME).read(), b"odd")
        listed = python.execute("import os\nprint(*os.listdir('/mnt/data'))")
        self.assertEqual(listed["stdout"], AWKWARD_NAME + "\n")

    def test_a_second_upload_replaces_the_first(self):
        python = tool()
        python.upload_file(data=io.BytesIO(b"the first"), remote_file_path="a.txt")
        python.upload_file(data=io.BytesIO(b"2nd"), remote_file_path="a.txt")
        self.assertEqual(python.download_file(remote_file_path="a.txt").read(), b"2nd")

    def test_the_list_has_what_was_uploaded_and_what_was_written(self):
        python = tool()
        self.assertEqual(python.list_files(), [])
        python.upload_file(data=io.BytesIO(b"12345"), remote_file_path="a.txt")
        python.execute("open('/mnt/data/b.txt', 'w').write('123')")
        sizes = {file.filename: file.size_in_bytes for file in python.list_files()}
        self.assertEqual(sizes, {"a.txt": 5, "b.txt": 3})

    def test_a_missing_file_is_a_404_with_a_reason(self):
        with self.assertRaises(requests.HTTPError) as caught:
            tool().download_file(remote_file_path="nowhere.txt")
        self.assertEqual(caught.exception.response.status_code, 404)
        error = caught.exception.response.json()["error"]
        self.assertTrue(error["code"] and error["message"])


class Access(unittest.TestCase):
    def test_a_wrong_token_is_a_401(self):
        with self.assertRaises(requests.HTTPError) as caught:
            tool(access_token_provider=lambda: "wrong").execute("1")
        self.assertEqual(caught.exception.response.status_code, 401)

    def test_the_endpoint_may_end_in_a_slash(self):
        self.assertEqual(tool(pool_management_endpoint=ENDPOINT + "/").execute("2")["result"], 2)


if __name__ == "__main__":
    unittest.main()
