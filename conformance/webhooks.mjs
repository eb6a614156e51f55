// Svix's JavaScript library, and Clerk's SDK, as judges and signers of webhooks: a JSON line in, a JSON
// line out.
//
//   {"sign": {"secret", "id", "seconds", "body"}}    → {"signature"}
//   {"verify": {"secret", "headers", "body_base64"}} → {"svix": true or false, "clerk": …}

import { createInterface } from 'node:readline';
import { verifyWebhook } from '@clerk/backend/webhooks';
import { Webhook } from 'svix';

const holds = async ask => {
  try {
    await ask();
    return true;
  } catch {
    return false;
  }
};

const operations = {
  async sign({ secret, id, seconds, body }) {
    return { signature: new Webhook(secret).sign(id, new Date(seconds * 1000), body) };
  },

  async verify({ secret, headers, body_base64 }) {
    const body = Buffer.from(body_base64, 'base64');
    return {
      svix: await holds(() => new Webhook(secret).verify(body, headers)),
      clerk: await holds(() =>
        verifyWebhook(new Request('http://127.0.0.1/', { method: 'POST', headers, body }), {
          signingSecret: secret,
        }),
      ),
    };
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const [[ask, question]] = Object.entries(JSON.parse(line));
  console.log(JSON.stringify(await operations[ask](question)));
}
