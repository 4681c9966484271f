"""What a session is, and what survives in it."""

import fcntl
import os
import struct
import termios
import unittest

from session import Case, Session
import hearth_frames


def unread(socket):
    """How much of what was sent the kernel has not read."""
    return struct.unpack("i", fcntl.ioctl(socket, termios.TIOCOUTQ, bytes(4)))[0]


class Life(Case):
    def test_a_session_is_the_main_program_beside_its_files(self):
        self.assertEqual(self.succeeds("__name__").text, "'__main__'")
        self.assertEqual(self.succeeds("import sys\nsys.argv").text, "['']")
        self.assertEqual(self.succeeds("import os\nos.getcwd()").text, "'/mnt/data'")
        self.assertEqual(self.succeeds("sys.modules['__main__'].__dict__ is globals()").text, "True")

    def test_the_kernels_own_folder_is_not_searched(self):
        self.assertEqual(self.succeeds("import sys\n'/opt/hearth' in sys.path").text, "False")

    def test_nothing_of_the_warm_up_is_left(self):
        names = self.succeeds("[n for n in dir() if not n.startswith('_')]").text
        self.assertEqual(names, "['In', 'Out', 'exit', 'get_ipython', 'open', 'quit']")
        self.assertEqual(self.succeeds("import sys\nhasattr(sys, 'last_value')").text, "False")

    def test_a_spares_rehearsal_does_not_show(self):
        seen = "{k: repr(v) for k, v in globals().items()}, In, Out, get_ipython().execution_count"
        spare = Session()
        self.addCleanup(spare.close)
        spare.wait_until_ready_for_a_cell()
        rehearsed, fresh = spare.run(seen), self.run_cell(seen)
        self.assertEqual(rehearsed.text, fresh.text)
        self.assertEqual((rehearsed.stdout, rehearsed.stderr, rehearsed.displays), ("", "", []))
        spare.run("20 + 1")
        self.assertEqual(spare.run("_ * 2").text, "42")

    def test_top_level_await_works_again_and_again(self):
        for n in range(3):
            cell = self.succeeds(f"import asyncio\nawait asyncio.sleep(0, {n})")
            self.assertEqual(cell.text, str(n))

    def test_an_event_loop_of_ones_own_works(self):
        cell = self.succeeds("import asyncio\nasyncio.run(asyncio.sleep(0, 'x'))")
        self.assertEqual(cell.text, "'x'")

    def test_leaving_ends_the_cell_and_not_the_session(self):
        self.succeeds("import sys\nx = 42")
        for code, message in (("sys.exit()", ""), ("sys.exit(3)", "3"), ("exit()", ""), ("quit(1)", "1"), ("exit", "")):
            cell = self.run_cell(code)
            self.assertEqual((cell.error["name"], cell.error["message"]), ("SystemExit", message), code)
            self.assertEqual((cell.stdout, cell.stderr), ("", ""), code)
        self.assertEqual(self.succeeds("x").text, "42")

    def test_changed_modules_and_builtins_do_not_break_the_next_cell(self):
        self.succeeds(
            "import json, os, signal, socket, sys, threading\n"
            "json.dumps = json.loads = json.JSONEncoder = json.JSONDecoder = None\n"
            "os._exit = os.getpid = os.close = signal.signal = signal.alarm = None\n"
            "socket.socket = threading.get_ident = None\n"
            "len = str = print = list = 1"
        )
        self.assertEqual(self.succeeds("display(1)\n1 + 1").text, "2")

    def test_a_shell_broken_beyond_use_still_answers(self):
        self.succeeds("get_ipython().run_cell = None")
        self.assertEqual(self.fails("1 + 1")["name"], "TypeError")

    def test_a_forgotten_alarm_does_not_go_off_between_cells(self):
        self.succeeds("import signal\nsignal.alarm(100)\nsignal.getitimer(signal.ITIMER_REAL)[0] > 0")
        self.assertEqual(self.succeeds("signal.getitimer(signal.ITIMER_REAL)").text, "(0.0, 0.0)")

    def test_futures_hold_for_the_cells_after_them(self):
        self.succeeds("from __future__ import annotations")
        self.assertEqual(self.succeeds("def f(x: Nowhere): pass\nf.__annotations__").text, "{'x': 'Nowhere'}")

    def test_a_hundred_cells_later_everything_still_works(self):
        for n in range(100):
            self.assertEqual(self.succeeds(f"{n} + 1").text, str(n + 1))


class Loop(Case):
    """One event loop for all cells, which also runs between them."""

    WORK = (
        "import asyncio, time\ndone = []\n"
        "async def work(n, seconds=0):\n    await asyncio.sleep(seconds)\n    done.append(n)\n    return n"
    )

    def settled(self, code, text):
        """Runs a cell until it answers so."""
        for _ in range(2000):
            if self.succeeds(code).text == text:
                return
        self.fail(f"{code} is never {text}")

    def test_a_task_of_one_cell_is_awaited_in_the_next(self):
        self.succeeds(self.WORK)
        self.succeeds("task = asyncio.create_task(work(1, 0.05))")
        self.assertEqual(self.succeeds("await task, done").text, "(1, [1])")
        self.succeeds("await asyncio.sleep(0)\ntask = asyncio.ensure_future(work(2))")
        self.assertEqual(self.succeeds("await task").text, "2")
        self.succeeds("tasks = asyncio.gather(work(3), work(4))")
        self.assertEqual(self.succeeds("await tasks").text, "[3, 4]")

    def test_what_is_due_later_happens_between_cells(self):
        self.succeeds(self.WORK)
        self.succeeds("asyncio.get_running_loop().call_later(0.01, done.append, 'later'); None")
        self.settled("done", "['later']")
        self.succeeds("asyncio.create_task(work('a', 0.01)); asyncio.get_event_loop().create_task(work('b', 0.01)); None")
        self.settled("sorted(done)", "['a', 'b', 'later']")
        self.succeeds("f = asyncio.get_event_loop().run_in_executor(None, work, 1)\nawait asyncio.sleep(0)")
        self.assertEqual(self.succeeds("await (await f)").text, "1")

    def test_the_loop_is_the_same_in_all_cells_and_runs(self):
        self.succeeds("import asyncio\nfirst = asyncio.get_running_loop()")
        for code in (
            "asyncio.get_running_loop() is first, first.is_running()",
            "asyncio.get_event_loop() is first, first.is_running()",
            "await asyncio.sleep(0)\nasyncio.get_running_loop() is first, first.is_running()",
        ):
            self.assertEqual(self.succeeds(code).text, "(True, True)", code)

    def test_a_library_that_runs_a_loop_by_itself_needs_nobody_to_name_one(self):
        self.succeeds("import sys\nopen('/tmp/quiet.py', 'w').write('import ' + 'asyn' + 'cio\\n'\n"
                      "    'def run(): return ' + 'asyn' + 'cio.run(' + 'asyn' + 'cio.sleep(0, 7))')\n"
                      "sys.path.append('/tmp')\nimport quiet")
        self.assertEqual(self.succeeds("quiet.run()").text, "7")
        self.assertEqual(self.succeeds("import asyncio\nasyncio.create_task(asyncio.sleep(0))\nquiet.run()").text, "7")

    def test_running_a_program_works_and_breaks_nothing(self):
        self.succeeds(self.WORK)
        self.succeeds("task = asyncio.create_task(work('task', 0.01))")
        for code in (
            "asyncio.run(work(7))",
            "with asyncio.Runner() as runner: got = runner.run(work(7))\ngot",
            "asyncio.get_event_loop().run_until_complete(work(7))",
            "loop = asyncio.new_event_loop()\nasyncio.set_event_loop(loop)\ngot = loop.run_until_complete(work(7))\nloop.close()\ngot",
            "loop = asyncio.get_event_loop()\ngot = loop.run_until_complete(work(7))\nloop.close()\ngot",
            "loop = asyncio.get_event_loop()\nloop.call_soon(loop.stop)\nloop.run_forever()\n7",
            "import threading\ngot = []\n"
            "t = threading.Thread(target=lambda: got.append(asyncio.run(work(7)))); t.start(); t.join()\ngot[0]",
            "import multiprocessing\nwith multiprocessing.Pool(1) as pool: got = pool.map(asyncio.run, [])\n7",
            "asyncio.get_event_loop().stop()\n7",
        ):
            self.assertEqual(self.succeeds(code).text, "7", code)
            self.assertEqual(self.succeeds("await work(8)").text, "8", code)
            self.succeeds("asyncio.create_task(work(9)); None")
        self.assertEqual(self.succeeds("await task").text, "'task'")

    def test_a_forked_child_can_run_programs_of_its_own(self):
        self.succeeds(self.WORK)
        cell = self.succeeds(
            "import os\nif (pid := os.fork()) == 0:\n"
            "    try: os._exit(asyncio.run(work(7)))\n    finally: os._exit(0)\n"
            "os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])"
        )
        self.assertEqual(cell.text, "7")

    def test_a_task_that_fails_or_leaves_between_cells_does_not_end_the_session(self):
        self.succeeds("import asyncio, sys\nx = 42\nseen = []")
        for end in ("1 / 0", "sys.exit()", "asyncio.get_running_loop().stop()", "raise KeyboardInterrupt"):
            self.succeeds(f"async def bad():\n    await asyncio.sleep(0)\n    seen.append(0)\n    {end}")
            self.succeeds("seen.clear()\ntask = asyncio.create_task(bad())")
            self.settled("len(seen)", "1")
            self.assertEqual(self.succeeds("await asyncio.sleep(0)\nx").text, "42", end)

    def test_a_task_that_computes_between_cells_keeps_no_probe_waiting(self):
        self.succeeds("import asyncio, threading\nbusy, go = threading.Event(), threading.Event()")
        self.succeeds("def wait():\n    print('busy', flush=True)\n    go.wait()\n"
                      "threading.Timer(3, go.set).start()\nasyncio.get_running_loop().call_later(0.01, wait); None")
        os.read(self.session.stdout, 100)
        self.session.socket.sendall(hearth_frames.encode({"type": "probe"}))
        while unread(self.session.socket):
            os.sched_yield()
        self.assertEqual(self.succeeds("go.is_set()").text, "True")

    def test_an_interrupted_cell_leaves_the_tasks_alone(self):
        self.succeeds(self.WORK)
        self.succeeds("event = asyncio.Event()\ntask = asyncio.create_task(event.wait())")
        self.session.begin("print('go')\nawait asyncio.sleep(1000)")
        self.session.end(until="go")
        self.session.wait_until_asleep()
        self.session.interrupt()
        self.assertEqual(self.session.end().error["name"], "KeyboardInterrupt")
        self.assertEqual(self.succeeds("event.set()\nawait task").text, "True")


class Processes(Case):
    def test_only_the_first_of_two_that_come_back_from_a_cell_answers(self):
        code = "import os\npid = os.fork()\nif pid: print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
        self.assertEqual(self.succeeds(code).stdout, "0\n")
        self.assertEqual(self.succeeds("1 + 1").text, "2")

    def test_a_forked_child_that_fails_says_so(self):
        cell = self.succeeds(code := "import os\npid = os.fork()\nif pid == 0: raise KeyError('child')\nos.waitpid(pid, 0)[1]")
        self.assertEqual(cell.text, str(1 << 8), code)
        self.assertIn("KeyError: 'child'", cell.stderr)

    def writes_in_a_grandchild(self, arrange):
        """Has a child get the user's own descriptor 3, and its child write there."""
        self.succeeds(
            "import os, threading, multiprocessing, subprocess, sys\n"
            "def own():\n"
            "    file = os.open('/tmp/own', os.O_WRONLY | os.O_CREAT | os.O_TRUNC)\n"
            "    if file != 3: os.dup2(file, 3)\n"
            "def write():\n"
            "    pid = os.fork()\n"
            "    if pid == 0:\n"
            "        try: os.write(3, b'grandchild')\n"
            "        finally: os._exit(0)\n"
            "    os.waitpid(pid, 0)\n"
            "def child():\n"
            "    own()\n"
            "    write()\n"
            "def forked(fork):\n"
            "    pid = fork()\n"
            "    if pid == 0:\n"
            "        try: child()\n"
            "        finally: os._exit(0)\n"
            "    os.waitpid(pid, 0)\n" + arrange
        )
        self.assertEqual(self.succeeds("open('/tmp/own').read()").text, "'grandchild'", arrange)

    def test_a_grandchild_keeps_a_descriptor_3_of_its_own(self):
        for arrange in (
            "forked(os.fork)",
            "forked(lambda: os.forkpty()[0])",
            "thread = threading.Thread(target=forked, args=(os.fork,))\nthread.start()\nthread.join()",
            "worker = multiprocessing.get_context('fork').Process(target=child)\nworker.start()\nworker.join()",
            "subprocess.run(['true'], preexec_fn=child, close_fds=False)",
            # A process that the interpreter does not know to be a fork.
            "import ctypes\nforked(ctypes.PyDLL(None).fork)",
        ):
            self.writes_in_a_grandchild(arrange)

    def test_a_program_of_a_child_inherits_a_descriptor_3_of_its_own(self):
        self.writes_in_a_grandchild(
            "def write():\n"
            "    os.set_inheritable(3, True)\n"
            "    command = [sys.executable, '-c', 'import os; os.write(3, b\"grandchild\")']\n"
            "    subprocess.run(command, pass_fds=(3,), preexec_fn=lambda: None)\n"
            "forked(os.fork)"
        )

    def test_a_child_does_not_hold_the_sessions_socket(self):
        cell = self.succeeds(
            "import os\nif (pid := os.fork()) == 0:\n    try: os.fstat(3)\n    except OSError: os._exit(7)\n"
            "    finally: os._exit(0)\nos.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])"
        )
        self.assertEqual(cell.text, "7")

    def test_a_pool_of_forked_processes_works(self):
        cell = self.succeeds(
            "import multiprocessing\ndef double(x): return 2 * x\n"
            "with multiprocessing.Pool(2) as pool: doubled = pool.map(double, range(5))\ndoubled"
        )
        self.assertEqual(cell.text, "[0, 2, 4, 6, 8]")

    def test_a_pool_of_spawned_processes_works_even_after_a_reset(self):
        for before in ("pass", "%reset -f"):
            self.succeeds(before)
            cell = self.succeeds(
                "import math, multiprocessing\n"
                "with multiprocessing.get_context('spawn').Pool(1) as pool: roots = pool.map(math.sqrt, [4, 9])\nroots"
            )
            self.assertEqual(cell.text, "[2.0, 3.0]")

    def test_what_a_cell_defines_is_refused_to_another_interpreter_at_once(self):
        self.succeeds("import multiprocessing, concurrent.futures as futures\ndef double(x): return 2 * x\nclass Own: pass")
        for method in ("spawn", "forkserver"):
            self.succeeds(f"context = multiprocessing.get_context('{method}')")
            for code in (
                "with context.Pool(1) as pool: pool.map(double, [1])",
                "with context.Pool(1) as pool: pool.apply_async(print, (Own(),)).get()",
                "with context.Pool(1) as pool: list(pool.imap(double, [1]))",
                "context.Process(target=double, args=(1,)).start()",
                "with context.Pool(1, initializer=double, initargs=(1,)) as pool: pass",
                "with futures.ProcessPoolExecutor(1, context) as pool: list(pool.map(double, [1]))",
                "with futures.ProcessPoolExecutor(1, context) as pool: pool.submit(double, 1).result()",
            ):
                error = self.fails(code)
                self.assertEqual(error["name"], "PicklingError", code)
                self.assertIn("is defined in a cell", error["message"], code)
                self.assertIn("get_context('fork')", error["message"], code)

    def test_who_may_start_nothing_more_hears_how_much_there_may_be(self):
        self.succeeds(
            "import os, resource, subprocess, sys, threading\n"
            "open('/tmp/pids.max', 'w').write('2')\n"
            "sys.modules['hearth_stdlib']._TASKS = '/tmp/pids.max'\n"
            "event = threading.Event()\n"
            "waiting = threading.Thread(target=event.wait)\n"
            "waiting.start()\n"
            "most = resource.getrlimit(resource.RLIMIT_NPROC)\n"
            "resource.setrlimit(resource.RLIMIT_NPROC, (1, most[1]))"
        )
        for start, name, message in (
            ("threading.Thread(target=print).start()", "RuntimeError", "can't start new thread: "),
            ("os.fork()", "BlockingIOError", "[Errno 11] Resource temporarily unavailable: "),
            ("os.forkpty()", "BlockingIOError", "[Errno 11] Resource temporarily unavailable: "),
            ("subprocess.run('true')", "BlockingIOError", "[Errno 11] Resource temporarily unavailable: "),
            ("!true", "BlockingIOError", "[Errno 11] Resource temporarily unavailable: "),
            ("os.posix_spawn('/bin/true', ['true'], {})", "BlockingIOError", "[Errno 11] Resource temporarily"),
        ):
            error = self.fails(start)
            self.assertEqual(error["name"], name, start)
            self.assertTrue(error["message"].startswith(message), error)
            self.assertEqual(error["message"].count("this session may have 2 processes and threads"), 1, error)
            self.assertIn("`processes` in the pool's limits", error["traceback"].splitlines()[-1])
        # It is not their number.
        self.succeeds("open('/tmp/pids.max', 'w').write('1000')")
        self.assertEqual(self.fails("threading.Thread(target=print).start()")["message"], "can't start new thread")
        self.succeeds("resource.setrlimit(resource.RLIMIT_NPROC, most)\nevent.set(); waiting.join()")
        self.assertEqual(self.succeeds("threading.Thread(target=print).start()").stdout, "\n")

    def test_nothing_follows_the_end_of_a_cell(self):
        # A thread that began to show something while its cell ran comes too late with it.
        self.succeeds(
            "import hearth_shell, threading\n"
            "begun, over, said = threading.Event(), threading.Event(), threading.Event()\n"
            "def late(show):\n"
            "    begun.set(); over.wait(); show({'text/plain': 'late'}); said.set()\n"
            "threading.Thread(target=late, args=(hearth_shell.SINK.displayed,)).start()\n"
            "begun.wait()"
        )
        cell = self.succeeds("over.set(); said.wait(); display('now')")
        self.assertEqual([shown["text/plain"] for shown in cell.displays], ["'now'"])

    def test_a_probe_is_read_and_not_answered(self):
        self.session.socket.sendall(hearth_frames.encode({"type": "probe"}))
        self.assertEqual(self.succeeds("1 + 1").text, "2")

    def test_threads_print_into_their_cell(self):
        cell = self.succeeds(
            "import threading\nthreads = [threading.Thread(target=print, args=(n,)) for n in range(4)]\n"
            "for t in threads: t.start()\nfor t in threads: t.join()"
        )
        self.assertEqual(sorted(cell.stdout.split()), ["0", "1", "2", "3"])

    def test_parallel_jobs_work(self):
        cell = self.succeeds(
            "from concurrent.futures import ThreadPoolExecutor\n"
            "with ThreadPoolExecutor(4) as pool: squares = list(pool.map(lambda x: x * x, range(4)))\nsquares"
        )
        self.assertEqual(cell.text, "[0, 1, 4, 9]")


class Interrupts(Case):
    def interrupted(self, code, asleep=False):
        self.session.begin(code)
        self.session.end(until="go")
        if asleep:
            self.session.wait_until_asleep()
        self.session.interrupt()
        cell = self.session.end()
        self.assertEqual(cell.error and cell.error["name"], "KeyboardInterrupt")
        return cell

    def test_an_endless_loop_ends_and_variables_survive(self):
        cell = self.interrupted("x = 42\nprint('go')\nwhile True: pass")
        self.assertIn("while True: pass", cell.error["traceback"])
        self.assertEqual(self.succeeds("x").text, "42")

    def test_a_blocking_call_ends(self):
        self.interrupted("import threading\nprint('go')\nthreading.Event().wait()", asleep=True)
        self.interrupted("print('go')\n!cat /dev/zero > /dev/null", asleep=True)

    def test_a_waiting_coroutine_ends_and_does_not_go_on_in_the_next_cell(self):
        self.succeeds("import asyncio\nevent = asyncio.Event()")
        cell = self.interrupted("print('go')\nawait event.wait()\nprint('went on')", asleep=True)
        self.assertIn("----> 2 await event.wait()", cell.error["traceback"])
        self.assertNotIn("Cancelled", cell.error["traceback"])
        cell = self.succeeds("event.set()\nfor _ in range(9): await asyncio.sleep(0)\n1")
        self.assertEqual((cell.text, cell.stdout), ("1", ""))

    def test_a_busy_coroutine_ends(self):
        self.interrupted("import asyncio\nawait asyncio.sleep(0)\nprint('go')\nwhile True: pass")

    def test_an_interrupt_is_acknowledged_before_it_is_told(self):
        cell = self.interrupted("print('go')\nwhile True: pass")
        self.assertEqual([frame["type"] for frame in cell.said], ["interrupted"])
        cell = self.interrupted("import asyncio\nprint('go')\nawait asyncio.sleep(1000)", asleep=True)
        self.assertEqual([frame["type"] for frame in cell.said], ["interrupted"])
        self.assertEqual(self.run_cell("raise KeyError").said, [])

    def test_an_interrupt_in_a_library_shows_the_users_lines_and_the_last(self):
        self.succeeds("import pandas as pd\ndef slow(x):\n    print('go')\n    while True: pass  # mine")
        cell = self.interrupted("pd.DataFrame({'a': range(9)}).apply(slow, axis=1)  # here")
        for part in ("# mine", "# here"):
            self.assertIn(part, cell.error["traceback"])
        self.assertTrue(cell.error["traceback"].endswith("KeyboardInterrupt"))

    def test_unfinished_figures_are_not_drawn_after_an_interrupt(self):
        cell = self.interrupted("import matplotlib.pyplot as plt\nplt.plot([1])\nprint('go')\nwhile True: pass")
        self.assertEqual(cell.displays, [])
        self.assertIn("1 unfinished figure(s) not drawn", cell.stderr)
        self.assertEqual(self.succeeds("plt.get_fignums()").text, "[]")

    def test_another_interrupt_ends_what_waits_for_its_threads(self):
        self.succeeds("import threading\nfrom concurrent.futures import ThreadPoolExecutor\nend = threading.Event()\nx = 42")
        self.session.begin("with ThreadPoolExecutor(2) as pool:\n    print('go')\n    list(pool.map(lambda _: end.wait(), range(2)))")
        self.session.end(until="go")
        self.session.wait_until_asleep()
        for _ in range(100):
            self.session.interrupt()
            if self.session.says_within(0.2):
                break
        self.assertEqual(self.session.end().error["name"], "KeyboardInterrupt")
        self.assertEqual(self.succeeds("end.set()\nx").text, "42")

    def test_frames_stay_whole(self):
        # The frame does not fit into the socket: the interrupt finds the kernel in the middle of it.
        self.interrupted("print('go')\ndisplay({'text/plain': 'x' * (8 << 20)}, raw=True)", asleep=True)
        self.assertEqual(self.succeeds("1").text, "1")

    def test_between_cells_nothing_happens(self):
        self.succeeds("1")
        for _ in range(10):
            self.session.interrupt()
        self.assertEqual(self.succeeds("1").text, "1")

    def test_a_handler_of_ones_own_ends_with_its_cell(self):
        self.succeeds("import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN); None")
        self.interrupted("print('go')\nwhile True: pass")


class Siblings(unittest.TestCase):
    def test_two_kernels_of_one_zygote_draw_different_numbers(self):
        code = "import os, random, uuid\nimport numpy\n"
        for expression in ("random.random()", "numpy.random.rand()", "numpy.random.default_rng().random()", "uuid.uuid4()"):
            drawn = set()
            for _ in range(3):
                session = Session()
                drawn.add(session.run(code + expression).text)
                session.close()
            self.assertEqual(len(drawn), 3, expression)
