"""gigachain-azure-dynamic-sessions: SessionsPythonREPLTool as it was at first."""

import io
import json
import unittest

import requests
from langchain_azure_dynamic_sessions import SessionsPythonREPLTool
from stack import AWKWARD_NAME, BINARY, ENDPOINT, PLOT, TOKEN, new_id


def tool(token=TOKEN):
    return SessionsPythonREPLTool(
        pool_management_endpoint=ENDPOINT,
        access_token_provider=lambda: token,
        session_id=new_id(),
    )


class Code(unittest.TestCase):
    def test_invoked_with_code_it_answers_json(self):
        answer = json.loads(tool().invoke("print('hello')\n1 + 1"))
        self.assertEqual(answer, {"result": 2, "stdout": "hello\n", "stderr": ""})

    def test_an_error_is_told_in_stderr(self):
        answer = json.loads(tool().invoke("1 / 0"))
        self.assertIn("ZeroDivisionError: division by zero", answer["stderr"])

    def test_an_image_is_left_out_for_the_model(self):
        answer = json.loads(tool().invoke(PLOT))
        self.assertEqual(answer["result"], {"type": "image", "format": "png"})

    def test_state_is_kept_between_calls(self):
        python = tool()
        python.execute("x = 41")
        self.assertEqual(python.execute("x + 1")["result"], 42)


class Files(unittest.TestCase):
    def test_files_go_up_and_come_down(self):
        python = tool()
        stored = python.upload_file(data=io.BytesIO(BINARY), remote_file_path=AWKWARD_NAME)
        self.assertEqual((stored.filename, stored.size_in_bytes), (AWKWARD_NAME, len(BINARY)))
        self.assertEqual([file.filename for file in python.list_files()], [AWKWARD_NAME])
        self.assertEqual(python.download_file(remote_file_path=AWKWARD_NAME).read(), BINARY)

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
