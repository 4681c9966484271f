// undici, and the `fetch` of Node that is made of it: forms as browsers make them.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, describe, test } from "node:test";
import { gzipSync } from "node:zlib";

import * as undici from "undici";

const HEADERS = { Authorization: `Bearer ${process.env.TOKEN}` };
const NAMES = [
  "report%20final.csv",
  "100%25.txt",
  "100%.txt",
  "a%22b.txt",
  "a%2Fb.txt",
  "Résumé (final) 日本.txt",
  "semi;colon.txt",
  "plus+and space.txt",
  "back\\slash.txt",
  'quote".txt',
];
const CLIENTS = [
  ["node", { fetch, FormData, Blob }],
  ["undici", { fetch: undici.fetch, FormData: undici.FormData, Blob }],
];

const sessions = [];
const newId = () => {
  sessions.push(`client-${randomUUID()}`);
  return sessions.at(-1);
};
const address = (path, identifier, version = "2024-02-02-preview") =>
  `${process.env.POOL_ENDPOINT}/${path}?${new URLSearchParams({ "api-version": version, identifier })}`;
after(async () => {
  for (const identifier of sessions) {
    const session = address("session", identifier, "2025-10-02-preview");
    await fetch(session, { method: "DELETE", headers: HEADERS });
  }
});

for (const [name, client] of CLIENTS) {
  describe(name, () => {
    test("gets its own names back", async () => {
      const session = newId();
      for (const own of NAMES) {
        const body = new client.FormData();
        body.append("file", new client.Blob([own]), own);
        const upload = { method: "POST", headers: HEADERS, body };
        const stored = await client.fetch(address("files/upload", session), upload);
        assert.equal(stored.status, 200, own);
        // A quote cannot be said in its forms.
        const kept = own.replaceAll('"', "%22");
        assert.equal((await stored.json()).value[0].properties.filename, kept);
        const path = `files/content/${encodeURIComponent(own)}`;
        const sent = await client.fetch(address(path, session), { headers: HEADERS });
        assert.equal(sent.status, 200, own);
        assert.equal(await sent.text(), own);
      }
    });

    test("may pack a body", async () => {
      const headers = { ...HEADERS, "Content-Encoding": "gzip" };
      const body = gzipSync(JSON.stringify({ properties: { code: "6 * 7" } }));
      const ran = await client.fetch(address("code/execute", newId()), {
        method: "POST",
        headers,
        body,
      });
      assert.equal((await ran.json()).properties.result, 42);
    });
  });
}
