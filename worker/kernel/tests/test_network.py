"""There is no network, and whoever tries to reach one is told so."""

import errno
import socket

import psutil
from session import Case, hearth_network

TRIES = "import asyncio, socket, time\nudp = socket.socket(type=socket.SOCK_DGRAM)\n"
NAMES = (
    "socket.getaddrinfo('example.com', 443)",
    "socket.gethostbyname('example.com')",
    "socket.gethostbyname_ex('example.com')",
    "socket.create_connection(('example.com', 443), timeout=30)",
    "await asyncio.open_connection('example.com', 443)",
    "socket.getnameinfo(('192.0.2.1', 80), socket.NI_NAMEREQD)",
)
ADDRESSES = (
    "socket.create_connection(('192.0.2.1', 443), timeout=30)",
    "socket.create_connection(('2001:db8::1', 443), timeout=30)",
    "await asyncio.open_connection('192.0.2.1', 443)",
    "udp.connect(('192.0.2.1', 53))",
    "udp.sendto(b'x', ('192.0.2.1', 53))",
)
URLS = (
    "urllib.request.urlopen('https://example.com')",
    "urllib.request.urlopen('http://192.0.2.1')",
    "urllib.request.urlretrieve('https://example.com/a.csv')",
    "requests.get('https://example.com', timeout=30)",
    "requests.post('http://192.0.2.1', timeout=30)",
    "pd.read_csv('https://example.com/a.csv')",
    "seaborn.load_dataset('tips')",
)


def last_line(error):
    return error["traceback"].rstrip("\n").rpartition("\n")[2]


class Network(Case):
    def fails_at_once(self, code):
        told = self.fails(f"begun = time.monotonic()\n{code}")
        self.assertLess(float(self.succeeds("time.monotonic() - begun").text), 10, code)
        self.assertIn(hearth_network.NONE, last_line(told), code)
        return told

    def test_names_and_addresses_are_refused_in_words_and_with_the_usual_numbers(self):
        self.succeeds(TRIES)
        for code in NAMES:
            told = self.fails_at_once(code)
            self.assertEqual(told["name"], "gaierror", code)
            self.assertEqual(told["message"], f"[Errno {socket.EAI_AGAIN}] {hearth_network.NONE}", code)
        for code in ADDRESSES:
            told = self.fails_at_once(code)
            self.assertEqual(told["name"], "OSError", code)
            self.assertEqual(told["message"], f"[Errno {errno.ENETUNREACH}] {hearth_network.NONE}", code)
        told = self.fails_at_once("socket.gethostbyaddr('192.0.2.1')")
        self.assertEqual(told["message"], f"[Errno 2] {hearth_network.NONE}")
        caught = "try:\n    socket.gethostbyname('example.com')\nexcept OSError as error:\n    told = error\n"
        self.assertEqual(
            self.succeeds(f"{caught}told.errno == socket.EAI_AGAIN, told.args == (told.errno, str(told)[11:])").text,
            "(True, True)",
        )

    def test_what_libraries_say_ends_with_the_words(self):
        self.succeeds("import requests, seaborn, time, urllib.request\nimport pandas as pd")
        for code in URLS:
            self.fails_at_once(code)

    def test_a_library_that_keeps_the_words_to_itself_does_not_have_the_last_one(self):
        self.succeeds(
            "import socket\n"
            "def fetch():\n"
            "    try:\n"
            "        socket.create_connection(('192.0.2.1', 80))\n"
            "    except OSError as error:\n"
            "        raise RuntimeError('no data') from error\n"
            "library = compile('def read(fetch):\\n  try: fetch()\\n  except OSError: raise ValueError(\"bad\")\\n',"
            " '/usr/lib/library.py', 'exec')\n"
            "exec(library)"
        )
        for code in (
            "fetch()",
            "read(lambda: socket.gethostbyname('example.com'))",
            "import asyncio\nasync with asyncio.TaskGroup() as group:\n    group.create_task(asyncio.to_thread(fetch))",
        ):
            self.assertEqual(last_line(self.fails(code)), hearth_network.NONE, code)

    def test_another_problem_has_the_last_word(self):
        handled = "try:\n    socket.gethostbyname('example.com')\nexcept OSError:\n    {}['kept']"
        told = self.fails(f"import socket\n{handled}")
        self.assertEqual(last_line(told), "KeyError: 'kept'")
        self.assertIn("Errno -3", told["traceback"])
        handled = "try:\n    socket.gethostbyname('example.com')\nexcept OSError:\n    pd.read_csv('/nosuch.csv')"
        told = self.fails(f"import pandas as pd\n{handled}")
        self.assertIn("FileNotFoundError", last_line(told))
        odd = "class Odd(OSError):\n    strerror = property(lambda self: 1 / 0)\n    def __str__(self): return 'odd'\n"
        self.assertEqual(last_line(self.fails(f"{odd}raise Odd()")), "Odd: odd")
        for code in (
            "socket.create_connection(('127.0.0.1', 1))",
            "socket.getaddrinfo('example.com', 1, flags=socket.AI_NUMERICHOST)",
            "socket.getaddrinfo('localhost', 'no such service')",
        ):
            self.assertNotIn("no network", self.fails(code)["traceback"], code)

    def test_the_session_itself_is_reached(self):
        self.succeeds(
            "import http.server, threading, urllib.request, requests, socket\n"
            "class Handler(http.server.BaseHTTPRequestHandler):\n"
            "    def do_GET(self):\n"
            "        self.send_response(200); self.end_headers(); self.wfile.write(b'here')\n"
            "    def log_message(self, *_): pass\n"
            "server = http.server.ThreadingHTTPServer(('', 0), Handler)\n"
            "threading.Thread(target=server.serve_forever, daemon=True).start()"
        )
        for name in ("localhost", "127.0.0.1", "sandbox"):
            url = f"f'http://{name}:{{server.server_port}}'"
            self.assertEqual(self.succeeds(f"urllib.request.urlopen({url}).read()").text, "b'here'")
            self.assertEqual(self.succeeds(f"requests.get({url}).text").text, "'here'")
        self.succeeds(
            "import asyncio\n"
            "reader, writer = await asyncio.open_connection('localhost', server.server_port)\n"
            "writer.close(); await writer.wait_closed()\n"
            "ends = [socket.socket(type=socket.SOCK_DGRAM) for _ in range(2)]\n"
            "ends[0].bind(('127.0.0.1', 0))\n"
            "ends[1].sendto(b'x', ends[0].getsockname())\n"
            "assert ends[0].recv(9) == b'x'\n"
            "server.shutdown(); server.server_close()"
        )

    def test_processes_can_be_given_functions_of_the_resolver(self):
        spread = (
            "import multiprocessing, socket\n"
            "with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
            "    print(pool.map(socket.gethostbyname, ['localhost']), pool.apply(socket.if_nameindex))"
        )
        self.assertEqual(self.succeeds(spread).stdout, "['127.0.0.1'] [(1, 'lo')]\n")


class Loopback(Case):
    """These tests may ask over netlink, which a session may not."""

    def test_what_is_told_instead_is_what_the_kernel_tells(self):
        linux = psutil._psplatform
        self.assertEqual(hearth_network._names(), socket.if_nameindex.__wrapped__())
        self.assertCountEqual(hearth_network._addresses(), linux.net_if_addrs.__wrapped__())
        speed = linux.cext.net_if_duplex_speed
        self.assertEqual(hearth_network._duplex_and_speed("lo"), speed.__wrapped__("lo"))

    def test_it_is_told_where_the_kernel_refuses(self):
        def refused(*_):
            raise PermissionError(errno.EPERM, "refused")

        asked = hearth_network._else(refused, lambda *arguments: arguments)
        self.assertEqual(asked("lo"), ("lo",))
        self.assertEqual(list(psutil.net_if_addrs()), ["lo"])
        self.assertEqual(list(psutil.net_if_stats()), ["lo"])
