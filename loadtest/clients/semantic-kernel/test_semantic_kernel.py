"""semantic-kernel: SessionsPythonTool, which speaks https only and waits five seconds at most."""

import re
import tempfile
import unittest

from semantic_kernel import Kernel
from semantic_kernel.core_plugins import SessionsPythonTool
from semantic_kernel.core_plugins.sessions_python_tool.sessions_python_settings import (
    SessionsPythonSettings,
)
from semantic_kernel.exceptions import FunctionExecutionException
from stack import (
    AWKWARD_NAME,
    BINARY,
    ENDPOINT_HTTPS,
    PLOT,
    TOKEN,
    directory,
    local_file,
    new_id,
)

TEXT = re.compile(
    "Status:\n(?P<Status>.*)\n"
    "Result:\n(?P<Result>.*)\n"
    "Stdout:\n(?P<Stdout>.*)\n"
    "Stderr:\n(?P<Stderr>.*)",
    re.DOTALL,
)


class Case(unittest.IsolatedAsyncioTestCase):
    def tool(self, session_id=None, auth_callback=lambda: TOKEN, endpoint=ENDPOINT_HTTPS):
        tool = SessionsPythonTool(
            auth_callback=auth_callback,
            pool_management_endpoint=endpoint,
            settings=SessionsPythonSettings(identifier=session_id or new_id()),
            enable_dangerous_file_uploads=True,
            allowed_upload_directories={tempfile.gettempdir()},
        )
        self.addAsyncCleanup(tool.http_client.aclose)
        return tool

    async def run_code(self, tool, code):
        """The four parts of the tool's text."""
        text = await tool.execute_code(code)
        self.assertRegex(text, TEXT)
        return TEXT.fullmatch(text).groupdict()


class Code(Case):
    async def test_what_is_printed_is_stdout(self):
        text = await self.tool().execute_code("print('hello')")
        self.assertEqual(text, "Status:\nSuccess\nResult:\n\nStdout:\nhello\n\nStderr:\n")

    async def test_the_last_expression_is_the_result(self):
        answer = await self.run_code(self.tool(), "6 * 7")
        self.assertEqual((answer["Status"], answer["Result"]), ("Success", "42"))

    async def test_fenced_code_runs(self):
        answer = await self.run_code(self.tool(), "```python\nprint('fenced')\n```")
        self.assertEqual(answer["Stdout"], "fenced\n")

    async def test_an_error_is_told_in_stderr(self):
        answer = await self.run_code(self.tool(), "print('before')\n1 / 0")
        self.assertEqual((answer["Status"], answer["Stdout"]), ("Failure", "before\n"))
        self.assertIn("ZeroDivisionError: division by zero", answer["Stderr"])

    async def test_a_plot_comes_back_as_an_image_in_text(self):
        answer = await self.run_code(self.tool(), PLOT)
        self.assertEqual(answer["Status"], "Success")
        self.assertIn("'type': 'image'", answer["Result"])
        self.assertIn("'base64_data': 'iVBORw0KGgo", answer["Result"])

    async def test_a_kernel_invokes_the_plugin(self):
        kernel = Kernel()
        kernel.add_plugin(self.tool(), "python")
        answer = await kernel.invoke(
            plugin_name="python", function_name="execute_code", code="print(6 * 7)"
        )
        self.assertIn("Stdout:\n42\n", str(answer))


class Sessions(Case):
    async def test_state_is_kept_between_calls(self):
        tool = self.tool()
        await tool.execute_code("x = 5")
        self.assertEqual((await self.run_code(tool, "x * 2"))["Result"], "10")

    async def test_two_tools_of_one_session_share_it(self):
        session = new_id()
        await self.tool(session).execute_code("shared = 3")
        self.assertEqual((await self.run_code(self.tool(session), "shared"))["Result"], "3")

    async def test_an_identifier_of_odd_characters_is_one_session(self):
        # The tool pastes it into the address as it is.
        session = new_id("user|1-(a){b}[c];+")
        await self.tool(session).execute_code("shared = 3")
        self.assertEqual((await self.run_code(self.tool(session), "shared"))["Result"], "3")

    async def test_sessions_see_nothing_of_each_other(self):
        await self.tool().execute_code("secret = 1\nopen('/mnt/data/secret.txt', 'w').close()")
        other = self.tool()
        self.assertIn("NameError", (await self.run_code(other, "secret"))["Stderr"])
        self.assertEqual(await other.list_files(), [])


class Files(Case):
    async def test_an_upload_is_found_in_the_list(self):
        answer = await self.tool().upload_file(local_file_path=local_file(self, "a.txt", b"hello"))
        self.assertEqual((answer.full_path, answer.size_in_bytes), ("/mnt/data/a.txt", 5))

    async def test_an_upload_after_code_is_labelled_json_and_arrives(self):
        tool = self.tool()
        await tool.execute_code("1")
        self.assertEqual(tool.http_client.headers["Content-Type"], "application/json")
        await tool.upload_file(local_file_path=local_file(self, "a.bin", BINARY))
        answer = await self.run_code(tool, "import os\nos.path.getsize('/mnt/data/a.bin')")
        self.assertEqual(answer["Result"], str(len(BINARY)))

    async def test_an_upload_may_have_another_name(self):
        tool = self.tool()
        path = local_file(self, "here.txt", b"hello")
        answer = await tool.upload_file(local_file_path=path, remote_file_path="there.txt")
        self.assertEqual(answer.full_path, "/mnt/data/there.txt")
        self.assertEqual((await tool.download_file(remote_file_name="there.txt")).read(), b"hello")

    async def test_bytes_come_back_as_they_went(self):
        tool = self.tool()
        await tool.upload_file(local_file_path=local_file(self, "all.bin", BINARY))
        path = directory(self) / "all.bin"
        await tool.download_file(remote_file_name="all.bin", local_file_path=str(path))
        self.assertEqual(path.read_bytes(), BINARY)

    async def test_an_awkward_name_is_the_same_everywhere(self):
        tool = self.tool()
        answer = await tool.upload_file(local_file_path=local_file(self, AWKWARD_NAME, b"odd"))
        self.assertEqual(answer.full_path, f"/mnt/data/{AWKWARD_NAME}")
        self.assertEqual((await tool.download_file(remote_file_name=AWKWARD_NAME)).read(), b"odd")

    async def test_the_list_has_what_was_uploaded_and_what_was_written(self):
        tool = self.tool()
        await tool.upload_file(local_file_path=local_file(self, "a.txt", b"12345"))
        await tool.execute_code("open('/mnt/data/b.txt', 'w').write('123')")
        sizes = {file.full_path: file.size_in_bytes for file in await tool.list_files()}
        self.assertEqual(sizes, {"/mnt/data/a.txt": 5, "/mnt/data/b.txt": 3})

    async def test_a_missing_file_is_a_404(self):
        with self.assertRaisesRegex(FunctionExecutionException, "status code 404"):
            await self.tool().download_file(remote_file_name="nowhere.txt")


class Access(Case):
    async def test_a_token_may_be_fetched_asynchronously(self):
        async def fetch():
            return TOKEN

        answer = await self.run_code(self.tool(auth_callback=fetch), "2")
        self.assertEqual(answer["Result"], "2")

    async def test_a_wrong_token_is_a_401(self):
        with self.assertRaisesRegex(FunctionExecutionException, "status code 401"):
            await self.tool(auth_callback=lambda: "wrong").execute_code("1")

    async def test_the_endpoint_may_name_python_execute(self):
        tool = self.tool(endpoint=f"{ENDPOINT_HTTPS}/python/execute")
        self.assertEqual((await self.run_code(tool, "2"))["Result"], "2")


if __name__ == "__main__":
    unittest.main()
