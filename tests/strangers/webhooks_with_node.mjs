// Svix's JavaScript library and Clerk's SDK take the offline Clerk's webhooks. Prints a JSON line per
// check; run.py counts them.

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { once } from 'node:events';

// The libraries are installed where the oracle has them.
const require = createRequire(new URL('../../conformance/', import.meta.url));
const { verifyWebhook } = require('@clerk/backend/webhooks');
const { Webhook } = require('svix');

const apiUrl = process.env.CLERK_API_URL;
const secretKey = process.env.CLERK_SECRET_KEY;

const arrived = [];
const waiting = [];
const server = createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const message = { headers: request.headers, body: Buffer.concat(chunks) };
  response.writeHead(204).end();
  const taker = waiting.shift();
  if (taker) taker(message);
  else arrived.push(message);
});
server.listen(0, '127.0.0.1');
await once(server, 'listening');
const url = `http://127.0.0.1:${server.address().port}/webhooks/clerk`;

const ask = async (method, path, body) => {
  const answer = await fetch(`${apiUrl}${path}`, {
    method,
    headers: { 'content-type': 'application/json', authorization: `Bearer ${secretKey}` },
    body: body && JSON.stringify(body),
  });
  assert.ok(answer.ok, `${method} ${path}: ${answer.status}`);
  const text = await answer.text();
  return text ? JSON.parse(text) : undefined;
};
const tell = async settings =>
  (await ask('PUT', '/_emulator/webhooks', { url, ...settings })).secret;
// run.py ends what waits for ever.
const take = () => arrived.shift() ?? new Promise(resolve => waiting.push(resolve));

const withClerk = ({ headers, body }, signingSecret) =>
  verifyWebhook(new Request(url, { method: 'POST', headers, body }), { signingSecret });

const checks = {
  async 'every change is verified by Svix and by the SDK'() {
    const secret = await tell();
    const user = await ask('POST', '/v1/users', { email_address: ['zoé@example.com'], first_name: 'Zoé 🦀' });
    const session = await ask('POST', '/v1/sessions', { user_id: user.id });
    await ask('POST', `/v1/users/${user.id}/ban`);
    await ask('DELETE', '/v1/organizations/org_acme');
    const types = [];
    for (let number = 0; number < 6; number++) {
      const message = await take();
      const event = new Webhook(secret).verify(message.body, message.headers);
      assert.deepEqual((await withClerk(message, secret)).data, event.data);
      types.push(event.type);
      if (event.type === 'session.revoked') assert.equal(event.data.id, session.id);
    }
    assert.deepEqual(types, [
      'user.created', 'user.updated', 'session.created', 'user.updated', 'session.revoked',
      'organization.deleted',
    ]);
  },

  async 'a changed message is verified by neither'() {
    const secret = await tell();
    await ask('POST', '/v1/users/user_alice/lock');
    const { headers, body } = await take();
    const changed = { headers, body: Buffer.concat([body, Buffer.from(' ')]) };
    assert.throws(() => new Webhook(secret).verify(changed.body, changed.headers));
    await assert.rejects(withClerk(changed, secret));
  },

  async 'a rotation is verified with both secrets'() {
    const old = 'whsec_YW5vdGhlci1zZWNyZXQtb2YtMzItYnl0ZXMtbG9uZyE=';
    const secret = await tell({ old_secrets: [old] });
    await ask('POST', '/v1/users/user_alice/unlock');
    const message = await take();
    for (const signed of [secret, old]) {
      new Webhook(signed).verify(message.body, message.headers);
      await withClerk(message, signed);
    }
  },
};

for (const [name, check] of Object.entries(checks)) {
  let detail = '';
  try {
    await check();
  } catch (error) {
    detail = String(error?.stack ?? error);
  }
  console.log(JSON.stringify({ name, ok: detail === '', detail }));
}
server.close();
server.closeAllConnections();
