// @llamaindex/azure: AzureDynamicSessionTool. It saves images below the working directory.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import { dirname } from "node:path";
import { after, describe, test } from "node:test";

import { AzureDynamicSessionTool } from "@llamaindex/azure";

const AWKWARD_NAME = "Résumé (final) 日本 v2.txt";
const BINARY = Buffer.from(Array.from({ length: 256 * 1024 }, (_, i) => i % 256));
const PNG = Buffer.from("\x89PNG\r\n\x1a\n", "latin1");
const PLOT = "import matplotlib.pyplot as plt\nplt.plot([1, 2, 3])\nplt.show()";

const sessions = [];
const newId = () => {
  sessions.push(`client-${randomUUID()}`);
  return sessions.at(-1);
};
after(async () => {
  for (const identifier of sessions) {
    const query = new URLSearchParams({ "api-version": "2025-10-02-preview", identifier });
    await fetch(`${process.env.POOL_ENDPOINT}/session?${query}`, {
      method: "DELETE",
      headers: { Authorization: `Bearer ${process.env.TOKEN}` },
    });
  }
});

const tool = ({ sessionId = newId(), token = process.env.TOKEN } = {}) =>
  new AzureDynamicSessionTool({
    poolManagementEndpoint: process.env.POOL_ENDPOINT,
    azureADTokenProvider: async () => token,
    sessionId,
  });
const upload = (session, remoteFilename, content) =>
  session.uploadFile({ data: new Blob([content]), remoteFilename });
const download = async (session, remoteFilename) =>
  Buffer.from(await new Response(await session.downloadFile({ remoteFilename })).arrayBuffer());

describe("code", () => {
  test("what is printed is stdout", async () => {
    const answer = await tool().call({ code: "print('hello')" });
    assert.equal(answer.stdout, "hello\n");
    assert.equal(answer.stderr, "");
    assert.equal(answer.result, "");
  });

  test("the last expression is the result", async () => {
    assert.equal((await tool().call({ code: "6 * 7" })).result, 42);
  });

  test("an error is told in stderr", async () => {
    const answer = await tool().call({ code: "print('before')\n1 / 0" });
    assert.equal(answer.stdout, "before\n");
    assert.match(answer.stderr, /ZeroDivisionError: division by zero/);
  });

  test("a plot is saved as an image", async () => {
    const { result } = await tool().call({ code: PLOT });
    // The tool appends the file's name to a path that already has it.
    const image = await readFile(dirname(result));
    assert.deepEqual(image.subarray(0, PNG.length), PNG);
  });
});

describe("sessions", () => {
  test("state is kept between calls", async () => {
    const session = tool();
    await session.call({ code: "x = 5" });
    assert.equal((await session.call({ code: "x * 2" })).result, 10);
  });

  test("two tools of one session share it", async () => {
    const sessionId = newId();
    await tool({ sessionId }).call({ code: "shared = 3" });
    assert.equal((await tool({ sessionId }).call({ code: "shared" })).result, 3);
  });

  test("sessions see nothing of each other", async () => {
    await tool().call({ code: "secret = 1\nopen('/mnt/data/secret.txt', 'w').close()" });
    const other = tool();
    assert.match((await other.call({ code: "secret" })).stderr, /NameError/);
    assert.deepEqual(await other.listFiles(), []);
  });
});

describe("files", () => {
  test("an upload is answered with name and size", async () => {
    const { filename, size } = await upload(tool(), "a.txt", "hello world");
    assert.deepEqual({ filename, size }, { filename: "a.txt", size: 11 });
  });

  test("code reads what was uploaded", async () => {
    const session = tool();
    await upload(session, "a.txt", "hello");
    const answer = await session.call({ code: "print(open('/mnt/data/a.txt').read())" });
    assert.equal(answer.stdout, "hello\n");
  });

  test("what code writes can be downloaded", async () => {
    const session = tool();
    await session.call({ code: "open('/mnt/data/out.txt', 'w').write('from code')" });
    assert.equal((await download(session, "out.txt")).toString(), "from code");
  });

  test("bytes come back as they went", async () => {
    const session = tool();
    await upload(session, "all.bin", BINARY);
    assert.deepEqual(await download(session, "all.bin"), BINARY);
  });

  test("an awkward name is the same everywhere", async () => {
    const session = tool();
    assert.equal((await upload(session, AWKWARD_NAME, "odd")).filename, AWKWARD_NAME);
    assert.deepEqual((await session.listFiles()).map((file) => file.filename), [AWKWARD_NAME]);
    assert.equal((await download(session, AWKWARD_NAME)).toString(), "odd");
  });

  test("the list has what was uploaded and what was written", async () => {
    const session = tool();
    await upload(session, "a.txt", "12345");
    await session.call({ code: "open('/mnt/data/b.txt', 'w').write('123')" });
    const sizes = Object.fromEntries((await session.listFiles()).map((f) => [f.filename, f.size]));
    assert.deepEqual(sizes, { "a.txt": 5, "b.txt": 3 });
  });

  // The tool does not look at the status.
  test("a missing file is an error in the answer's text", async () => {
    const { error } = JSON.parse(await download(tool(), "nowhere.txt"));
    assert.ok(error.code && error.message);
  });
});

describe("access", () => {
  test("a wrong token lists no files", async () => {
    await assert.rejects(tool({ token: "wrong" }).listFiles(), /HTTP error/);
  });
});
