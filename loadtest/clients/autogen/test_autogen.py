"""autogen-ext: ACADynamicSessionsCodeExecutor."""

import pathlib
import re
import time
import unittest

from autogen_core import CancellationToken
from autogen_core.code_executor import CodeBlock, with_requirements
from autogen_ext.code_executors.azure import ACADynamicSessionsCodeExecutor
from azure.core.credentials import AccessToken
from stack import AWKWARD_NAME, BINARY, ENDPOINT, PLOT, TOKEN, directory, new_id


class Credential:
    def __init__(self, token=TOKEN):
        self.token = token

    def get_token(self, *scopes, **options):
        return AccessToken(self.token, int(time.time()) + 3600)


@with_requirements(python_packages=["numpy"], global_imports=["numpy"])
def total(numbers: list) -> int:
    """Adds numbers up."""
    return int(numpy.sum(numbers))  # noqa: F821 imported in the session


@with_requirements(python_packages=["no-such-package"])
def impossible() -> None:
    """Needs what no session has."""


class Case(unittest.IsolatedAsyncioTestCase):
    def executor(self, session_id=None, token=TOKEN, **settings):
        """An executor that keeps files in a directory of its own."""
        return ACADynamicSessionsCodeExecutor(
            pool_management_endpoint=ENDPOINT,
            credential=Credential(token),
            session_id=session_id or new_id(),
            work_dir=directory(self),
            **settings,
        )

    async def run_code(self, executor, *blocks):
        blocks = [CodeBlock(code=code, language="python") for code in blocks]
        return await executor.execute_code_blocks(blocks, CancellationToken())

    async def upload(self, executor, name, content):
        (executor.work_dir / name).write_bytes(content)
        await executor.upload_files([name], CancellationToken())

    async def download(self, executor, name):
        (executor.work_dir / name).unlink(missing_ok=True)
        (path,) = await executor.download_files([name], CancellationToken())
        return pathlib.Path(path).read_bytes()


class Code(Case):
    async def test_what_is_printed_is_the_output(self):
        answer = await self.run_code(self.executor(), "print('hello')")
        self.assertEqual((answer.exit_code, answer.output), (0, "hello\n"))

    async def test_the_result_follows_what_is_printed(self):
        answer = await self.run_code(self.executor(), "print('hello')\n6 * 7")
        self.assertEqual((answer.exit_code, answer.output), (0, "hello\n42"))

    async def test_the_result_may_be_left_out(self):
        executor = self.executor(suppress_result_output=True)
        answer = await self.run_code(executor, "print('hello')\n6 * 7")
        self.assertEqual(answer.output, "hello\n")

    async def test_a_plot_comes_back_as_an_image_in_text(self):
        answer = await self.run_code(self.executor(), PLOT)
        self.assertEqual(answer.exit_code, 0)
        self.assertIn("'type': 'image'", answer.output)
        self.assertIn("'base64_data': 'iVBORw0KGgo", answer.output)

    async def test_an_error_is_exit_code_1(self):
        answer = await self.run_code(self.executor(), "print('before')\n1 / 0")
        self.assertEqual(answer.exit_code, 1)
        self.assertIn("before\n", answer.output)
        self.assertIn("ZeroDivisionError: division by zero", answer.output)

    async def test_blocks_run_one_after_the_other(self):
        answer = await self.run_code(self.executor(), "x = 20", "x += 1\nprint(x)", "x * 2")
        self.assertEqual((answer.exit_code, answer.output), (0, "21\n42"))

    async def test_code_works_where_files_are(self):
        answer = await self.run_code(self.executor(), "import os\nprint(os.getcwd())")
        self.assertEqual(answer.output, "/mnt/data\n")


class Packages(Case):
    async def installed(self):
        """What the executor has learned from its first code."""
        executor = self.executor()
        await self.run_code(executor, "1")
        return await executor.get_available_packages(CancellationToken())

    async def test_the_executor_learns_what_is_installed(self):
        self.assertLessEqual({"numpy", "pandas", "matplotlib"}, await self.installed())

    async def test_the_executor_learns_names_and_nothing_else(self):
        odd = [name for name in await self.installed() if not re.fullmatch(r"[\w.-]+", name)]
        self.assertEqual(odd, [])

    async def test_a_function_that_needs_numpy_can_be_called(self):
        answer = await self.run_code(self.executor(functions=[total]), "total([1, 2, 39])")
        self.assertEqual((answer.exit_code, answer.output), (0, "42"))

    async def test_a_function_that_needs_what_is_missing_is_refused(self):
        with self.assertRaisesRegex(ValueError, "no-such-package"):
            await self.run_code(self.executor(functions=[impossible]), "impossible()")

    async def test_a_package_that_is_missing_is_named(self):
        answer = await self.run_code(self.executor(), "! pip install no-such-package")
        self.assertEqual(answer.exit_code, 1)
        self.assertIn("no-such-package", answer.output)


class Sessions(Case):
    async def test_state_is_kept_between_calls(self):
        executor = self.executor()
        await self.run_code(executor, "x = 5")
        self.assertEqual((await self.run_code(executor, "x * 2")).output, "10")

    async def test_two_executors_of_one_session_share_it(self):
        session = new_id()
        await self.run_code(self.executor(session), "shared = 3")
        self.assertEqual((await self.run_code(self.executor(session), "shared")).output, "3")

    async def test_an_identifier_of_odd_characters_is_one_session(self):
        # The executor pastes it into the address as it is.
        session = new_id("user|1-(a){b}[c];+")
        await self.run_code(self.executor(session), "shared = 3")
        self.assertEqual((await self.run_code(self.executor(session), "shared")).output, "3")

    async def test_sessions_see_nothing_of_each_other(self):
        mine = self.executor()
        await self.run_code(mine, "secret = 1\nopen('secret.txt', 'w').close()")
        other = self.executor()
        self.assertIn("NameError", (await self.run_code(other, "secret")).output)
        self.assertEqual(await other.get_file_list(CancellationToken()), [])

    async def test_a_restart_begins_anew(self):
        executor = self.executor()
        await self.run_code(executor, "gone = 1\nopen('gone.txt', 'w').close()")
        await executor.restart()
        answer = await self.run_code(executor, "gone")
        self.assertEqual(answer.exit_code, 1)
        self.assertIn("NameError", answer.output)
        self.assertEqual(await executor.get_file_list(CancellationToken()), [])

    async def test_a_restart_brings_functions_back(self):
        executor = self.executor(functions=[total])
        await self.run_code(executor, "1")
        await executor.restart()
        self.assertEqual((await self.run_code(executor, "total([1, 2])")).output, "3")


class Files(Case):
    async def test_code_reads_what_was_uploaded(self):
        executor = self.executor()
        await self.upload(executor, "a.txt", b"hello")
        self.assertEqual((await self.run_code(executor, "open('a.txt').read()")).output, "'hello'")

    async def test_what_code_writes_can_be_downloaded(self):
        executor = self.executor()
        await self.run_code(executor, "open('out.txt', 'w').write('from code')")
        self.assertEqual(await self.download(executor, "out.txt"), b"from code")

    async def test_bytes_in_chunks_come_back_as_they_went(self):
        executor = self.executor()
        await self.upload(executor, "all.bin", BINARY)
        self.assertEqual(await self.download(executor, "all.bin"), BINARY)

    async def test_several_files_go_and_come_at_once(self):
        executor = self.executor()
        names = ["a.txt", "b.txt", "c.txt"]
        for name in names:
            (executor.work_dir / name).write_text(f"this is {name}")
        await executor.upload_files(names, CancellationToken())
        self.assertEqual(sorted(await executor.get_file_list(CancellationToken())), names)
        paths = await executor.download_files(names, CancellationToken())
        contents = [pathlib.Path(path).read_text() for path in paths]
        self.assertEqual(contents, [f"this is {name}" for name in names])

    async def test_an_awkward_name_is_the_same_everywhere(self):
        executor = self.executor()
        await self.upload(executor, AWKWARD_NAME, b"odd")
        self.assertEqual(await executor.get_file_list(CancellationToken()), [AWKWARD_NAME])
        self.assertEqual(await self.download(executor, AWKWARD_NAME), b"odd")

    async def test_a_file_of_an_awkward_name_written_by_code_can_be_downloaded(self):
        executor = self.executor()
        await self.run_code(executor, f"open({AWKWARD_NAME!r}, 'w').write('odd')")
        self.assertEqual(await self.download(executor, AWKWARD_NAME), b"odd")

    async def test_a_missing_file_is_not_found(self):
        with self.assertRaises(FileNotFoundError):
            await self.download(self.executor(), "nowhere.txt")


class Access(Case):
    async def test_a_wrong_token_is_a_connection_error(self):
        with self.assertRaises(ConnectionError):
            await self.run_code(self.executor(token="wrong"), "1")


if __name__ == "__main__":
    unittest.main()
