"""llama-index-tools-azure-code-interpreter: AzureCodeInterpreterToolSpec."""

import unittest

import requests
from llama_index.tools.azure_code_interpreter import AzureCodeInterpreterToolSpec
from stack import AWKWARD_NAME, BINARY, ENDPOINT, PLOT, PNG, TOKEN, directory, local_file, new_id


def spec(session_id=None, token=TOKEN, **settings):
    interpreter = AzureCodeInterpreterToolSpec(
        pool_management_endpoint=ENDPOINT, session_id=session_id or new_id(), **settings
    )
    # The constructor takes no credential.
    interpreter.access_token_provider = lambda: token
    return interpreter


def run(interpreter, code):
    return interpreter.code_interpreter(code)["properties"]


class Code(unittest.TestCase):
    def test_what_is_printed_is_stdout(self):
        answer = run(spec(), "print('hello')")
        self.assertEqual((answer["status"], answer["stdout"]), ("Success", "hello\n"))
        self.assertEqual((answer["stderr"], answer["result"]), ("", ""))

    def test_the_last_expression_is_the_result(self):
        self.assertEqual(run(spec(), "6 * 7")["result"], 42)

    def test_fenced_code_runs(self):
        self.assertEqual(run(spec(), "```python\nprint('fenced')\n```")["stdout"], "fenced\n")

    def test_an_error_is_told_in_stderr(self):
        answer = run(spec(), "1 / 0")
        self.assertEqual(answer["status"], "Failure")
        self.assertIn("ZeroDivisionError: division by zero", answer["stderr"])

    def test_an_image_is_blanked_for_the_model(self):
        result = run(spec(), PLOT)["result"]
        self.assertEqual(result, {"type": "image", "format": "png", "base64_data": ""})

    def test_a_plot_is_saved_where_images_go(self):
        path = directory(self)
        result = run(spec(local_save_path=str(path)), PLOT)["result"]
        self.assertIs(result["saved_to_local_path"], True)
        (image,) = path.glob("*.png")
        self.assertTrue(image.read_bytes().startswith(PNG))

    def test_the_tools_of_an_agent_run(self):
        tools = {tool.metadata.name: tool for tool in spec().to_tool_list()}
        self.assertEqual(set(tools), {"code_interpreter", "list_files"})
        answer = tools["code_interpreter"].call(python_code="print(1)").raw_output
        self.assertEqual(answer["properties"]["stdout"], "1\n")
        self.assertEqual(tools["list_files"].call().raw_output, [])


class Sessions(unittest.TestCase):
    def test_state_is_kept_between_calls(self):
        interpreter = spec()
        run(interpreter, "x = 5")
        self.assertEqual(run(interpreter, "x * 2")["result"], 10)

    def test_two_tools_of_one_session_share_it(self):
        session = new_id()
        run(spec(session), "shared = 3")
        self.assertEqual(run(spec(session), "shared")["result"], 3)

    def test_sessions_see_nothing_of_each_other(self):
        run(spec(), "secret = 1\nopen('/mnt/data/secret.txt', 'w').close()")
        other = spec()
        self.assertIn("NameError", run(other, "secret")["stderr"])
        self.assertEqual(other.list_files(), [])


class Files(unittest.TestCase):
    def test_an_upload_is_answered_with_path_and_size(self):
        (answer,) = spec().upload_file(local_file_path=local_file(self, "a.csv", b"a,b\n1,2\n"))
        self.assertEqual((answer.file_full_path, answer.size_in_bytes), ("/mnt/data/a.csv", 8))

    def test_an_upload_by_full_path_is_stored_once(self):
        interpreter = spec()
        interpreter.upload_file(local_file_path=local_file(self, "a.csv", b"a,b\n1,2\n"))
        answer = run(interpreter, "import os\nprint(os.listdir('/mnt/data'))")
        self.assertEqual(answer["stdout"], "['a.csv']\n")

    def test_bytes_come_back_as_they_went(self):
        interpreter = spec()
        interpreter.upload_file(local_file_path=local_file(self, "all.bin", BINARY))
        path = directory(self) / "all.bin"
        interpreter.download_file_to_local("all.bin", str(path))
        self.assertEqual(path.read_bytes(), BINARY)

    def test_a_download_may_be_named_by_its_full_path(self):
        interpreter = spec()
        run(interpreter, "open('/mnt/data/out.txt', 'w').write('from code')")
        content = interpreter.download_file_to_local("/mnt/data/out.txt").read()
        self.assertEqual(content, b"from code")

    def test_an_awkward_name_is_the_same_everywhere(self):
        interpreter = spec()
        path = f"/mnt/data/{AWKWARD_NAME}"
        (answer,) = interpreter.upload_file(local_file_path=local_file(self, AWKWARD_NAME, b"odd"))
        self.assertEqual(answer.file_full_path, path)
        self.assertEqual([file.file_full_path for file in interpreter.list_files()], [path])
        self.assertEqual(interpreter.download_file_to_local(AWKWARD_NAME).read(), b"odd")

    def test_the_list_has_what_was_uploaded_and_what_was_written(self):
        interpreter = spec()
        interpreter.upload_file(local_file_path=local_file(self, "a.txt", b"12345"))
        run(interpreter, "open('/mnt/data/b.txt', 'w').write('123')")
        sizes = {file.file_full_path: file.size_in_bytes for file in interpreter.list_files()}
        self.assertEqual(sizes, {"/mnt/data/a.txt": 5, "/mnt/data/b.txt": 3})

    def test_a_missing_file_is_a_404(self):
        with self.assertRaises(requests.HTTPError) as caught:
            spec().download_file_to_local("nowhere.txt")
        self.assertEqual(caught.exception.response.status_code, 404)


class Access(unittest.TestCase):
    def test_a_wrong_token_is_a_401(self):
        with self.assertRaises(requests.HTTPError) as caught:
            run(spec(token="wrong"), "1")
        self.assertEqual(caught.exception.response.status_code, 401)


if __name__ == "__main__":
    unittest.main()
