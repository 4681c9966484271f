"""Variables on a planned move: what comes along, what does not, and that nothing else happens."""

import os
import pathlib
import random
import re
import textwrap
import unittest

from session import Session

KINDS = (pathlib.Path(__file__).parent / "kinds_of_values.txt").read_text()


class Moves(unittest.TestCase):
    """One scenario in a session that moves."""

    def setUp(self):
        self.session = self.started()

    def started(self):
        session = Session()
        self.addCleanup(lambda: self.assertEqual(session.close(), 0))
        return session

    def succeeds(self, code):
        cell = self.session.run(textwrap.dedent(code))
        self.assertIsNone(cell.error, cell.error and cell.error["traceback"])
        return cell

    def holds(self, *expressions):
        for expression in expressions:
            cell = self.succeeds(f"assert {expression}")
            self.assertEqual((cell.stdout, cell.stderr, cell.displays), ("", "", []), expression)

    def moves(self, lost=(), lost_there=(), seconds=60):
        """Goes on in a new kernel."""
        saved = self.session.snapshot(seconds=seconds)
        self.assertEqual(saved.lost, list(lost))
        self.session = self.started()
        self.assertEqual(self.session.restore(saved.data), list(lost_there))


class Carried(Moves):
    def test_every_kind_of_value_survives_two_moves(self):
        kinds = [part.partition("\n") for part in KINDS.split("\n== ")[1:]]
        checks = [(kind, re.findall("^>>> (.*)$", lines, re.MULTILINE)) for kind, _, lines in kinds]
        self.succeeds("import asyncio, os, sys")
        for _, _, lines in kinds:
            self.succeeds(re.sub("^>>> .*$", "", lines, flags=re.MULTILINE))
        for _ in range(2):
            self.moves()
            for kind, expressions in checks:
                with self.subTest(kind):
                    self.assertTrue(expressions)
                    self.holds(*expressions)

    def test_functions_see_the_variables_of_their_session(self):
        self.succeeds("""
            rate = 2
            def cost(n): return n * rate
            def raise_rate():
                global rate
                rate += 1
        """)
        self.moves()
        self.holds("cost(10) == 20")
        self.succeeds("rate = 5")
        self.holds("cost(10) == 50")
        self.succeeds("raise_rate()")
        self.holds("rate == 6", "cost.__globals__ is globals()")
        self.assertIn("module 'builtins'", self.succeeds("__builtins__").text)

    def test_a_script_keeps_its_own_variables(self):
        self.succeeds("""
            open('script.py', 'w').write('rate = 2\\ndef cost(n): return n * rate')
            %run script.py
        """)
        self.moves()
        self.succeeds("rate = 5")
        self.holds("cost(10) == 20")

    def test_what_several_share_stays_shared(self):
        self.succeeds("""
            rows = [[1], [2]]
            first, by_name, copied = rows[0], {'r': rows}, list(rows)
            class A: pass
            a = A()
            a.rows = rows
        """)
        self.moves()
        self.holds("rows[0] is first", "by_name['r'] is rows", "a.rows is rows", "type(a) is A")
        self.holds("copied is not rows and copied[1] is rows[1]")
        self.succeeds("first.append(7)")
        self.holds("by_name['r'][0] == [1, 7]")

    def test_closures_over_one_variable_stay_so(self):
        self.succeeds("""
            def account():
                total = 0
                def put(n):
                    nonlocal total
                    total += n
                return put, lambda: total, [put]
            put, total, puts = account()
            other_put, other_total, _x = account()
        """)
        for total in (3, 6):
            self.moves()
            self.succeeds("put(1); puts[0](2)")
            self.holds(f"total() == {total}", "other_total() == 0")

    def test_the_rest_of_the_interpreter_is_new(self):
        self.succeeds("import os\nos.environ['X'] = 'y'\n6 * 7")
        self.moves()
        self.assertEqual(self.succeeds("_").text, "''")
        self.assertEqual(self.succeeds("Out").text, "{1: ''}")
        self.assertEqual(self.succeeds("len(In)").text, "4")
        self.holds("_i1 == '_'", "'X' not in os.environ")

    def test_nothing_to_carry_is_nothing_lost(self):
        before = self.succeeds("sorted(globals())").text
        self.moves()
        self.assertEqual(self.succeeds("sorted(globals())").text, before)

    def test_a_rehearsed_spare_takes_variables_over(self):
        self.succeeds("import numpy, pandas\nrow = pandas.DataFrame({'a': range(9)}).a")
        saved = self.session.snapshot()
        self.session = self.started()
        self.session.wait_until_ready_for_a_cell()
        self.assertEqual(self.session.restore(saved.data), [])
        self.holds("row.sum() == 36", "numpy.sum(row) == 36")

    def test_the_session_may_go_on_where_it_was(self):
        self.succeeds("x = [1]")
        saved = self.session.snapshot()
        self.succeeds("x.append(2)")
        self.moves()
        self.holds("x == [1, 2]")
        other = self.started()
        self.assertEqual(other.restore(saved.data), [])
        self.assertEqual(other.run("x").text, "[1]")

    def test_an_error_in_a_carried_function_is_told(self):
        self.succeeds("def half(x):\n    return x / 0")
        self.moves()
        error = self.session.run("# halves\nhalf(2)").error
        self.assertEqual(error["name"], "ZeroDivisionError")
        self.assertIn("----> 2 half(2)", error["traceback"])

    def test_a_table_of_a_hundred_thousand_rows(self):
        self.succeeds("""
            import numpy, pandas
            names = [f'name {n}' for n in range(100_000)]
            table = pandas.DataFrame({'n': numpy.arange(100_000), 'name': names})
        """)
        self.moves()
        self.holds("table.n.sum() == 4999950000", "table.name.tolist() == names")

    def test_a_hundred_thousand_names(self):
        self.succeeds("for n in range(100_000): globals()[f'v{n}'] = [n]")
        self.moves()
        self.holds("v0 == [0]", "v99999 == [99999]")

    def test_odd_names_are_carried(self):
        self.succeeds("""
            odd = ['two words', 'line\\nbreak', 'x' * 100_000, '\\ud800', '', 'if']
            for n, name in enumerate(odd): globals()[name] = n
        """)
        self.moves()
        self.holds("[globals()[name] for name in odd] == [0, 1, 2, 3, 4, 5]")

    def test_changed_modules_do_not_matter(self):
        self.succeeds("""
            import base64, cloudpickle, io, json, pickle, struct, time
            x = lambda: 5
            pickle.Pickler = cloudpickle.Pickler = pickle.dumps = io.BytesIO = time.monotonic = None
            base64.b64encode = base64.b64decode = struct.Struct = json.dumps = None
            len = bytes = list = 1
        """)
        self.moves()
        self.holds("x() == 5", "len == 1")


class Lost(Moves):
    def test_what_cannot_be_carried_is_named_and_costs_nothing_else(self):
        self.succeeds("""
            import asyncio, concurrent.futures, ctypes, queue, socket, sqlite3, sys, tempfile, threading
            before, path = [1], '/tmp/file'
        """)
        stuck = {
            "written": "open(path, 'w')",
            "read": "open(path)",
            "raw": "open(path, 'rb')",
            "closed": "open(path); closed.close()",
            "temporary": "tempfile.TemporaryFile()",
            "plug": "socket.socket()",
            "thread": "threading.Thread(target=print)",
            "lock": "threading.Lock()",
            "waiting": "queue.Queue()",
            "generator": "(x for x in [1])",
            "coroutine": "asyncio.sleep(0)",
            "base": "sqlite3.connect(':memory:')",
            "pool": "concurrent.futures.ThreadPoolExecutor(1)",
            "pointer": "ctypes.pointer(ctypes.c_int(1))",
            "frame": "sys._getframe()",
            "holder": "{'deep': [lock]}",
        }
        for name, made in stuck.items():
            self.succeeds(f"{name} = {made}")
        self.succeeds("after = [before]")
        saved = self.session.snapshot()
        self.succeeds("coroutine.close()")  # else it complains that nobody waited for it
        self.assertEqual(saved.lost, list(stuck))
        self.session = self.started()
        self.assertEqual(self.session.restore(saved.data), [])
        self.holds("after[0] is before", "'lock' not in globals()")

    def test_a_lost_variable_is_no_loss_of_the_functions_that_use_it(self):
        self.succeeds("""
            import threading
            lock = threading.Lock()
            def guarded(x):
                with lock: return x
            class A:
                def f(self): return guarded(2)
            a = A()
        """)
        self.moves(lost=["lock"])
        self.assertEqual(self.session.run("a.f()").error["name"], "NameError")
        self.succeeds("lock = threading.Lock()")
        self.holds("a.f() == 2")

    def test_what_shares_something_with_a_lost_one_is_carried(self):
        # The lock is beyond what a trial sees.
        self.succeeds("""
            import threading
            rows = [[1], [2]]
            bad = [rows, 'x' * 100_000, [rows[0]], threading.Lock()]
            new = bad[2]
            worse = [bad, new]
            last = [rows, new]
        """)
        self.moves(lost=["bad", "worse"])
        self.holds("last[0] is rows", "last[1] is new", "new[0] is rows[0]")

    def test_what_is_too_large_is_lost_and_what_is_small_enough_is_not(self):
        self.succeeds("""
            import numpy
            large, long = numpy.zeros(3_000_000), 'x' * (17 << 20)
            many = [str(n) for n in range(3_000_000)]
            x, fits = 1, bytes(10 << 20)
        """)
        self.moves(lost=["large", "long", "many"])
        self.holds("x == 1", "len(fits) == 10 << 20")

    def test_no_more_than_the_limit_is_written(self):
        self.succeeds("for n in range(2000): globals()[f'v{n}'] = [str(n)] * 50")
        whole = self.session.snapshot()
        self.assertEqual(whole.lost, [])
        for limit in (200, 300, 5000, len(whole.data) // 2, len(whole.data) - 1):
            saved = self.session.snapshot(max_bytes=limit)
            self.assertLessEqual(len(saved.data), limit)
            self.assertNotEqual(saved.lost, [])
            session = self.started()
            self.assertEqual(session.restore(saved.data), [])
            self.assertEqual(session.run("globals().get('v0', ['0'])[0]").text, "'0'")

    def test_what_is_not_reached_in_time_is_lost(self):
        self.succeeds("""
            import time
            class Slow:
                def __reduce__(self):
                    time.sleep(1.5)  # in the trial, and when it is written
                    return Slow, ()
            first, slow, late = 1, Slow(), 2
        """)
        self.moves(lost=["late"], seconds=2)
        self.holds("first == 1", "isinstance(slow, Slow)")

    def test_names_are_told_in_one_short_line_each(self):
        self.succeeds("""
            import threading
            lock = threading.Lock()
            names = ['two words', 'line\\nbreak', 'x' * 10_000_000, '\\ud800', '', 'ž', '\\u202e']
            for name in names: globals()[name] = lock
            globals()[7] = globals()[None] = globals()['t',] = 5
            del lock, name, names
        """)
        texts = ["two words", "line\\nbreak", "x" * 63 + "…", "\\ud800", "", "ž", "\\u202e"]
        self.moves(lost=[*texts, "<int>", "<NoneType>", "<tuple>"])

    def test_of_very_many_names_most_are_only_counted(self):
        self.succeeds("""
            import threading
            lock = threading.Lock()
            for n in range(2000): globals()[f'v{n}'] = lock
            del lock
        """)
        self.moves(lost=[*(f"v{n}" for n in range(99)), "and 1901 more"])


class LostThere(Moves):
    """Written, and not to be read."""

    def test_what_cannot_be_read_is_named_and_costs_nothing_else(self):
        self.succeeds("""
            class Bad:
                def __setstate__(self, state): raise SystemExit('never')
            rows = [[n] for n in range(100)]
            bad = Bad()
            bad.x = [rows[1], [rows[2]], [], []]
            uses, also = {'bad': bad}, [bad.x[1]]
            fresh = [[]]
            same = fresh[0]
            again = [rows[2], rows, fresh]
        """)
        self.moves(lost_there=["bad", "uses", "also"])
        self.holds("again[1] is rows", "again[0] is rows[2]", "again[2] is fresh", "fresh[0] is same")

    def test_a_module_that_is_not_there_is_lost(self):
        self.succeeds("""
            import os
            open('beside.py', 'w').write('class A: pass')
            import beside
            a, x = beside.A(), 1
            os.remove('beside.py')
        """)
        self.moves(lost_there=["beside", "a"])
        self.holds("x == 1")

    def test_what_needs_a_later_variable_to_be_read_gets_it(self):
        self.succeeds("""
            points = keyed = None
            class Point:
                def __init__(self, x): self.x = x
                def __hash__(self): return salted(self.x)
                def __eq__(self, other): return self.x == other.x
            def salted(x): return hash((x, SALT))
            later = [SALT := 5]
            points = {Point(1), Point(2)}
            keyed = {Point(3): points}
            later.append(points)
        """)
        self.moves()
        self.holds("Point(1) in points", "keyed[Point(3)] is points", "later[1] is points")

    def test_what_is_not_reached_in_time_is_lost(self):
        self.succeeds("""
            import time
            class Slow:
                def __init__(self): self.x = 1
                def __setstate__(self, state): time.sleep(2.5)
            first, slow, late = 1, Slow(), 2
        """)
        saved = self.session.snapshot()
        self.session = self.started()
        self.assertEqual(self.session.restore(saved.data, seconds=2), ["late"])
        self.holds("first == 1", "isinstance(slow, Slow)")

    def test_damaged_variables_are_lost_and_do_no_harm(self):
        self.succeeds("x = [1, 2]; y = 'z'")
        whole = self.session.snapshot().data
        self.session = self.started()
        damaged = [whole[:length] for length in range(len(whole))]
        damaged += [b"\n", b"x" * 1000, whole + b"x"]
        dice = random.Random(7)
        for _ in range(100):
            at = dice.randrange(len(whole))
            damaged.append(whole[:at] + bytes([dice.randrange(256)]) + whole[at + 1 :])
        for data in damaged:
            for name in self.session.restore(data):
                self.assertLessEqual(len(name), 64)
        self.assertEqual(self.session.restore(b""), ["all variables"])
        self.assertEqual(self.session.run("1 + 1").text, "2")

    def test_of_another_version_only_the_names_are_read(self):
        self.succeeds("x = [1, 2]; y = 'z'")
        data = self.session.snapshot().data.replace(b"cloudpickle ", b"cloudpickle 9", 1)
        self.session = self.started()
        self.assertEqual(self.session.restore(data), ["x", "y"])
        self.assertEqual(self.session.run("x").error["name"], "NameError")


class Mixtures(Moves):
    """Lists that hold each other, between them what cannot be written or not be read, near and deep."""

    MADE = """
        import random, threading
        dice = random.Random({seed})
        class Unreadable(list):
            def __init__(self, items):
                super().__init__(items)
                self.x = 1
            def __setstate__(self, state): raise ValueError
        things, lock, on_load = [[]], threading.Lock(), Unreadable([])
        for n in range(200):
            inside = dice.choices(things, k=dice.randrange(6)) + [[n], (n,), {{n: [n]}}]
            dice.shuffle(inside)
            things += inside[:3]
            # Few hold these, or nothing would be left to compare.
            match dice.randrange(40):
                case 0: inside.append(lock)
                case 1: inside = ['x' * 70_000, *inside, lock]
                case 2 if n > 100: inside.append(Unreadable([[n], *inside]))
                case 3 if n < 100: things[0].append(inside)
            globals()[f'v{{n}}'] = inside
        del things, inside, dice
    """
    STUCK = """
        def is_stuck(value, seen):
            if id(value) in seen: return False
            seen.add(id(value))
            if isinstance(value, dict): value = list(value.values())
            return value is lock or isinstance(value, (list, tuple)) and any(is_stuck(v, seen) for v in value)
        names = ['lock', *(f'v{n}' for n in range(200))]
        print(*(name for name in names if is_stuck(globals()[name], set())))
    """
    # The same for the same values that share the same things.
    SHAPE = """
        def told(value, numbers):
            if isinstance(value, (list, tuple, dict)):
                if id(value) in numbers: return f'#{{numbers[id(value)]}}'
                numbers[id(value)] = len(numbers)
                items = value.items() if isinstance(value, dict) else value
                return f'{{type(value).__name__}}{{[told(item, numbers) for item in items]}}'
            return repr(value)[:50]
        told([globals()[f'v{{n}}'] for n in range(200) if f'v{{n}}' not in {lost}], {{}})
    """

    def test_any_mixture_keeps_its_shape(self):
        first = random.SystemRandom().randrange(1 << 32)
        for seed in range(first, first + 8):
            with self.subTest(seed=seed):
                old = self.session = self.started()
                self.succeeds(self.MADE.format(seed=seed))
                saved = old.snapshot()
                self.assertEqual(set(saved.lost), set(self.succeeds(self.STUCK).stdout.split()))
                self.session = self.started()
                lost = self.session.restore(saved.data)
                self.assertIn("on_load", lost)
                shape = textwrap.dedent(self.SHAPE.format(lost=saved.lost + lost))
                self.assertEqual(self.succeeds(shape).text, old.run(shape).text)


class Hostile(Moves):
    def test_endless_things_end(self):
        self.succeeds("""
            from itertools import count
            class Deep:
                def __reduce__(self): return Deep, (Deep(),)
            class Long:
                def __reduce__(self): return list, (), None, count()
            class Wide:
                def __reduce__(self): return dict, (), None, None, ((n, [n]) for n in count())
            deep, long, wide, nested = Deep(), Long(), Wide(), []
            for _ in range(200_000): nested = [nested]
            x = 1
        """)
        self.moves(lost=["deep", "long", "wide", "nested"])
        self.holds("x == 1")

    def test_no_exception_gets_out(self):
        errors = "SystemExit KeyboardInterrupt MemoryError GeneratorExit BaseException RecursionError".split()
        self.succeeds(f"""
            class Bad:
                def __init__(self, error): self.error = error
                def __reduce__(self): raise self.error
            {", ".join(error[0] for error in errors)} = map(Bad, ({", ".join(errors)}))
            class Odd:
                def __reduce__(self): return 7
            class Name:
                def __reduce__(self): return 'nowhere'
            odd, name, x = Odd(), Name(), 1
            class Meta(type):
                def __getattribute__(cls, name): 1 / 0
            class Lies(metaclass=Meta): pass
        """)
        self.moves(lost=["Lies", *(error[0] for error in errors), "odd", "name"])
        self.holds("x == 1")

    def test_what_is_printed_and_set_up_belongs_to_no_cell(self):
        self.succeeds("""
            import os, signal
            def noise(*_):
                print('noise' * 50_000)
                os.write(2, b'noise')
                display('noise')
                signal.signal(signal.SIGINT, signal.SIG_DFL)
                signal.alarm(100)
            class Loud:
                def __getstate__(self):
                    noise()
                    return 1
                __setstate__ = noise
            loud = Loud()
        """)
        self.session.snapshot()
        self.session.interrupt()
        self.holds("signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)")
        self.moves()
        self.session.interrupt()
        self.holds("signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)", "isinstance(loud, Loud)")

    def test_only_the_first_of_two_that_come_back_answers(self):
        self.succeeds("""
            import os
            class Two:
                def __reduce__(self):
                    os.fork()
                    return Two, (), 1
                def __setstate__(self, state): os.fork()
            two = Two()
        """)
        self.moves()
        self.holds("isinstance(two, Two)")

    def test_variables_that_change_while_they_are_written(self):
        self.succeeds("""
            import threading
            stop, grows, x = False, {}, [1]
            def grow():
                n = 0
                while not stop:
                    n += 1
                    grows[n] = globals()[f'v{n % 100}'] = n
                    if n % 1000 == 0: grows.clear()
            thread = threading.Thread(target=grow)
            thread.start()
        """)
        for _ in range(5):
            self.assertLessEqual(set(self.session.snapshot().lost), {"grows", "thread"})
        self.succeeds("stop = True; thread.join(); del thread")
        self.moves()
        self.holds("x == [1]")
