"""azure-dynamic-sessions-code-interpreter: CodeInterpreterTool."""

import base64
import io
import json
import unittest
from types import SimpleNamespace

import requests
from azure_dynamic_sessions_code_interpreter import CodeInterpreterTool
from stack import AWKWARD_NAME, BINARY, ENDPOINT, PLOT, PNG, TOKEN, directory, local_file, new_id


def tool(session_id=None, token=TOKEN, **settings):
    interpreter = CodeInterpreterTool(
        pool_management_endpoint=ENDPOINT, session_id=session_id or new_id(), **settings
    )
    # The constructor takes no credential.
    interpreter.access_token_provider = lambda: token
    return interpreter


class Code(unittest.TestCase):
    def test_what_is_printed_is_stdout(self):
        answer = tool().execute("print('hello')")
        self.assertEqual((answer["status"], answer["stdout"]), ("Success", "hello\n"))
        self.assertEqual((answer["stderr"], answer["result"]), ("", ""))

    def test_the_last_expression_is_the_result(self):
        self.assertEqual(tool().execute("6 * 7")["result"], 42)

    def test_fenced_code_runs(self):
        self.assertEqual(tool().execute("```python\nprint('fenced')\n```")["stdout"], "fenced\n")

    def test_an_error_is_told_in_stderr(self):
        answer = tool().execute("1 / 0")
        self.assertEqual(answer["status"], "Failure")
        self.assertIn("ZeroDivisionError: division by zero", answer["stderr"])

    def test_a_plot_comes_back_as_an_image(self):
        result = tool().execute(PLOT)["result"]
        self.assertEqual((result["type"], result["format"]), ("image", "png"))
        self.assertTrue(base64.b64decode(result["base64_data"]).startswith(PNG))


class ToolCalls(unittest.TestCase):
    """As a model of OpenAI uses it."""

    def test_a_chat_completion_gets_a_tool_message(self):
        arguments = json.dumps({"python_code": "print('a')\n1 + 1"})
        call = SimpleNamespace(id="call_1", function=SimpleNamespace(arguments=arguments))
        interpreter = tool()
        message = interpreter.execute_tool_call(call, interpreter.get_tool_call_arguments(call))
        self.assertEqual((message["role"], message["tool_call_id"]), ("tool", "call_1"))
        content = json.loads(message["content"])
        self.assertEqual(content, {"result": 2, "stdout": "a\n", "stderr": ""})

    def test_a_response_gets_an_output_without_the_image(self):
        call = SimpleNamespace(call_id="call_2", arguments=json.dumps({"python_code": PLOT}))
        interpreter = tool()
        code = interpreter.get_tool_call_arguments(call, is_chat_completions_api=False)
        message = interpreter.execute_tool_call(call, code, is_chat_completions_api=False)
        self.assertEqual(message["call_id"], "call_2")
        result = json.loads(message["output"])["result"]
        self.assertEqual(result, {"type": "image", "format": "png"})


class Sessions(unittest.TestCase):
    def test_state_is_kept_between_calls(self):
        interpreter = tool()
        interpreter.execute("x = 5")
        self.assertEqual(interpreter.execute("x * 2")["result"], 10)

    def test_two_tools_of_one_session_share_it(self):
        session = new_id()
        tool(session).execute("shared = 3")
        self.assertEqual(tool(session).execute("shared")["result"], 3)

    def test_sessions_see_nothing_of_each_other(self):
        mine = tool()
        mine.execute("secret = 1\nopen('/mnt/data/secret.txt', 'w').close()")
        other = tool()
        self.assertIn("NameError", other.execute("secret")["stderr"])
        self.assertEqual(other.list_files(), [])


class Files(unittest.TestCase):
    def test_an_upload_is_answered_with_name_and_size(self):
        answer = tool().upload_file(data=io.BytesIO(b"hello world"), remote_file_path="a.txt")
        self.assertEqual((answer.filename, answer.size_in_bytes), ("a.txt", 11))
        self.assertEqual(answer.full_path, "/mnt/data/a.txt")

    def test_code_reads_what_was_uploaded(self):
        interpreter = tool()
        file = interpreter.upload_file(data=io.BytesIO(b"hello"), remote_file_path="a.txt")
        self.assertEqual(interpreter.execute(f"len(open({file.full_path!r}).read())")["result"], 5)

    def test_bytes_come_back_as_they_went(self):
        interpreter = tool()
        answer = interpreter.upload_file(local_file_path=local_file(self, "all.bin", BINARY))
        self.assertEqual((answer.filename, answer.size_in_bytes), ("all.bin", len(BINARY)))
        path = directory(self) / "all.bin"
        interpreter.download_file(remote_file_path="all.bin", local_file_path=str(path))
        self.assertEqual(path.read_bytes(), BINARY)

    def test_an_awkward_name_is_the_same_everywhere(self):
        interpreter = tool()
        answer = interpreter.upload_file(data=io.BytesIO(b"odd"), remote_file_path=AWKWARD_NAME)
        self.assertEqual(answer.filename, AWKWARD_NAME)
        self.assertEqual([file.filename for file in interpreter.list_files()], [AWKWARD_NAME])
        self.assertEqual(interpreter.download_file(remote_file_path=AWKWARD_NAME).read(), b"odd")

    def test_the_list_has_what_was_uploaded_and_what_was_written(self):
        interpreter = tool()
        self.assertEqual(interpreter.list_files(), [])
        interpreter.upload_file(data=io.BytesIO(b"12345"), remote_file_path="a.txt")
        interpreter.execute("open('/mnt/data/b.txt', 'w').write('123')")
        sizes = {file.filename: file.size_in_bytes for file in interpreter.list_files()}
        self.assertEqual(sizes, {"a.txt": 5, "b.txt": 3})

    def test_a_missing_file_is_a_404(self):
        with self.assertRaises(requests.HTTPError) as caught:
            tool().download_file(remote_file_path="nowhere.txt")
        self.assertEqual(caught.exception.response.status_code, 404)


class Access(unittest.TestCase):
    def test_a_wrong_token_is_a_401(self):
        with self.assertRaises(requests.HTTPError) as caught:
            tool(token="wrong").execute("1")
        self.assertEqual(caught.exception.response.status_code, 401)


if __name__ == "__main__":
    unittest.main()
