"""requests, httpx, aiohttp and curl: what plain HTTP clients send, and whether they get it back."""

import asyncio
import gzip
import io
import json
import os
import subprocess
import tempfile
import unittest
import urllib.parse
import zlib

import aiohttp
import httpx
import requests
from names import NAMES
from stack import ENDPOINT, ENDPOINT_HTTPS, TOKEN, new_id

HEADERS = {"Authorization": f"Bearer {TOKEN}"}
OLD, NEW = "2024-02-02-preview", "2025-10-02-preview"


def address(path, session, version=OLD, endpoint=ENDPOINT):
    query = urllib.parse.urlencode({"api-version": version, "identifier": session})
    return f"{endpoint}/{path}?{query}"


def content_of(name, session):
    return address(f"files/content/{urllib.parse.quote(name, safe='')}", session)


class Requests:
    # A quote cannot be said in its forms: it is sent as these three characters.
    keeps_quotes = False

    def upload(self, session, name, content):
        files = {"file": (name, content)}
        answer = requests.post(address("files/upload", session), headers=HEADERS, files=files)
        answer.raise_for_status()
        return answer.json()

    def download(self, session, name):
        answer = requests.get(content_of(name, session), headers=HEADERS)
        answer.raise_for_status()
        return answer.content

    def run(self, session, body, headers):
        answer = requests.post(
            address("code/execute", session), headers={**HEADERS, **headers}, data=body
        )
        return answer.status_code, answer.json()


class Httpx:
    keeps_quotes = False

    def upload(self, session, name, content):
        files = {"file": (name, content)}
        answer = httpx.post(address("files/upload", session), headers=HEADERS, files=files)
        return answer.raise_for_status().json()

    def download(self, session, name):
        answer = httpx.get(content_of(name, session), headers=HEADERS)
        return answer.raise_for_status().content

    def run(self, session, body, headers):
        answer = httpx.post(
            address("code/execute", session), headers={**HEADERS, **headers}, content=body
        )
        return answer.status_code, answer.json()


class Aiohttp:
    keeps_quotes = True

    def upload(self, session, name, content):
        async def upload():
            form = aiohttp.FormData()
            form.add_field("file", io.BytesIO(content), filename=name)
            async with (
                aiohttp.ClientSession(headers=HEADERS, raise_for_status=True) as client,
                client.post(address("files/upload", session), data=form) as answer,
            ):
                return await answer.json()

        return asyncio.run(upload())

    def download(self, session, name):
        async def download():
            # As it is: yarl would encode it anew.
            url = aiohttp.client.URL(content_of(name, session), encoded=True)
            async with (
                aiohttp.ClientSession(headers=HEADERS, raise_for_status=True) as client,
                client.get(url) as answer,
            ):
                return await answer.read()

        return asyncio.run(download())

    def run(self, session, body, headers):
        async def run():
            async with (
                aiohttp.ClientSession(headers={**HEADERS, **headers}) as client,
                client.post(address("code/execute", session), data=body) as answer,
            ):
                return answer.status, await answer.json()

        return asyncio.run(run())


class Curl:
    # Since 7.81 only.
    keeps_quotes = False

    def curl(self, *arguments):
        command = ["curl", "--silent", "--show-error", "--fail-with-body", "--noproxy", "*"]
        # Its own variable would go before the one that the others read.
        command += ["--cacert", os.environ["SSL_CERT_FILE"]]
        token = ["--header", f"Authorization: Bearer {TOKEN}"]
        done = subprocess.run([*command, *token, *arguments], capture_output=True, check=True)
        return done.stdout

    def upload(self, session, name, content):
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "content")
            with open(path, "wb") as file:
                file.write(content)
            quoted = name.replace("\\", "\\\\").replace('"', '\\"')
            form = f'file=@{path};filename="{quoted}"'
            return json.loads(self.curl("--form", form, address("files/upload", session)))

    def download(self, session, name):
        return self.curl(content_of(name, session))

    def run(self, session, body, headers):
        with tempfile.NamedTemporaryFile() as file:
            file.write(body)
            file.flush()
            lines = [part for pair in headers.items() for part in ("--header", ": ".join(pair))]
            sent = ["--data-binary", f"@{file.name}", address("code/execute", session)]
            return 200, json.loads(self.curl(*lines, *sent))


CLIENTS = [Requests(), Httpx(), Aiohttp(), Curl()]


class Names(unittest.TestCase):
    def test_each_client_gets_its_own_name_back(self):
        for client in CLIENTS:
            session = new_id()
            for name in NAMES:
                with self.subTest(client=type(client).__name__, name=name):
                    content = name.encode()
                    stored = client.upload(session, name, content)
                    kept = name if client.keeps_quotes else name.replace('"', "%22")
                    self.assertEqual(stored["value"][0]["properties"]["filename"], kept)
                    self.assertEqual(client.download(session, name), content)

    def test_aiohttp_that_does_not_encode_is_understood(self):
        session = new_id()

        async def upload(name):
            form = aiohttp.FormData(quote_fields=False)
            form.add_field("file", io.BytesIO(b"x"), filename=name)
            async with (
                aiohttp.ClientSession(headers=HEADERS) as client,
                client.post(address("files/upload", session), data=form) as answer,
            ):
                return (await answer.json())["value"][0]["properties"]["filename"]

        for name in ("50% off.txt", 'quote".txt', "back\\slash.txt", "sub/x.txt"):
            self.assertEqual(asyncio.run(upload(name)), name)

    def test_a_separator_that_aiohttp_encodes_is_refused(self):
        for name in ("sub/x.txt", "../x.txt"):
            with self.assertRaises(aiohttp.ClientResponseError) as refused:
                Aiohttp().upload(new_id(), name, b"x")
            self.assertEqual(refused.exception.status, 400)


class Bodies(unittest.TestCase):
    def test_packed_bodies_and_byte_order_marks_are_read(self):
        code = json.dumps({"properties": {"code": "6 * 7"}}).encode()
        marked = code.decode().encode("utf-8-sig")
        raw = zlib.compressobj(wbits=-15)
        bodies = [
            (code, {}),
            (marked, {}),
            (gzip.compress(code), {"Content-Encoding": "gzip"}),
            (zlib.compress(marked), {"Content-Encoding": "deflate"}),
            (raw.compress(code) + raw.flush(), {"Content-Encoding": "deflate"}),
        ]
        for client in CLIENTS:
            session = new_id()
            for body, headers in bodies:
                with self.subTest(client=type(client).__name__, headers=headers):
                    status, answer = client.run(session, body, headers)
                    self.assertEqual((status, answer["properties"]["result"]), (200, 42))

    def test_aiohttp_packs_a_file_as_it_sends_it(self):
        session, content = new_id(), b"packed " * 100_000

        async def upload():
            form = aiohttp.FormData()
            form.add_field("file", io.BytesIO(content), filename="packed.txt")
            async with (
                aiohttp.ClientSession(headers=HEADERS, raise_for_status=True) as client,
                client.post(
                    address("files/upload", session), data=form, compress="gzip"
                ) as answer,
            ):
                return await answer.json()

        stored = asyncio.run(upload())
        self.assertEqual(stored["value"][0]["properties"]["size"], len(content))
        self.assertEqual(Aiohttp().download(session, "packed.txt"), content)


    def test_nothing_is_lost_of_what_http_2_brings_at_once(self):
        # curl chooses HTTP/2 over TLS.
        session, curl, content = new_id(), Curl(), os.urandom(3_000_000)
        upload = address("files/upload", session, endpoint=ENDPOINT_HTTPS)
        for number in range(20):
            with tempfile.NamedTemporaryFile() as file:
                file.write(content)
                file.flush()
                form = f"file=@{file.name};filename={number}.bin"
                stored = json.loads(curl.curl("--http2", "--form", form, upload))
            self.assertEqual(stored["value"][0]["properties"]["size"], len(content))
        self.assertEqual(curl.download(session, "0.bin"), content)


class Refusals(unittest.TestCase):
    def test_who_still_sends_sees_why_it_is_refused(self):
        upload = address("files/upload", new_id(), endpoint=ENDPOINT.rsplit("/", 1)[0] + "/none")
        content = bytes(20_000_000)
        answer = requests.post(upload, headers=HEADERS, files={"file": ("x", content)})
        self.assertEqual(answer.status_code, 404)
        answer = httpx.post(upload, headers=HEADERS, files={"file": ("x", content)})
        self.assertEqual(answer.status_code, 404)

        async def status():
            form = aiohttp.FormData({"file": io.BytesIO(content)})
            async with (
                aiohttp.ClientSession(headers=HEADERS) as client,
                client.post(upload, data=form) as answer,
            ):
                return answer.status

        self.assertEqual(asyncio.run(status()), 404)


class Accepted(unittest.TestCase):
    def test_events_that_are_refused_are_not_sent(self):
        body = json.dumps({"code": "1"})
        for accept, kind in (
            ("text/event-stream", "text/event-stream"),
            ("text/event-stream;q=0, */*", "application/json"),
        ):
            answer = requests.post(
                address("executions", new_id(), NEW),
                headers={**HEADERS, "Accept": accept},
                data=body,
            )
            self.assertEqual(answer.headers["Content-Type"], kind)


if __name__ == "__main__":
    unittest.main()
