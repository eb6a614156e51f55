// A web handler that lets in whoever clerk-authz lets in, and nobody when it cannot be told.

import { createServer } from 'node:http';
import { Authz, CannotTell, Denied, Forbidden } from './clerk-authz.mjs';

const authz = new Authz(process.env.AUTHZ_ADDR ?? '127.0.0.1:50051');

const reply = (response, code, body, headers = {}) => {
  response.writeHead(code, { 'content-type': 'application/json', ...headers });
  response.end(JSON.stringify(body));
};

// Who am I?
const who = async (authorization, cookie) => {
  const session = await authz.verify(authorization, cookie);
  return [200, { user_id: session.userId, organization: session.organization?.id ?? '', role: session.organization?.role ?? '' }];
};

// Make an invoice, in the organization that is active in the session.
const makeInvoice = async (authorization, cookie) => {
  const decision = await authz.require(authorization, cookie, { permission: 'org:invoices:create' });
  return [201, { organization: decision.organizationId }];
};

const server = createServer(async (request, response) => {
  // Every value that was received: Node itself would keep the first `authorization` only.
  const { authorization = [], cookie = [] } = request.headersDistinct;
  try {
    const handler = request.method === 'POST' ? makeInvoice : who;
    const [code, body] = await handler(authorization, cookie);
    reply(response, code, body);
  } catch (error) {
    if (error instanceof Denied) {
      reply(response, 401, { reason: error.reason }, { 'www-authenticate': 'Bearer' });
    } else if (error instanceof Forbidden) {
      reply(response, 403, { reason: error.reason, decision_id: error.decisionId });
    } else if (error instanceof CannotTell) {
      reply(response, 503, { reason: error.reason }, { 'retry-after': String(error.retryAfterSeconds) });
    } else {
      reply(response, 503, { reason: 'INTERNAL' }, { 'retry-after': '1' });
    }
  }
});

server.listen(Number(process.env.PORT ?? 0), '127.0.0.1', () => {
  console.log(`listening on http://127.0.0.1:${server.address().port}`);
});
