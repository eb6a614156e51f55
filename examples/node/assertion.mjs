// A service that answers only what came through the authorizer: it believes no header but the signed one.
// ASSERTION_KEYS says where the keys are, ASSERTION_AUDIENCE the name that the route policy has for this
// service, ASSERTION_ISSUER who vouches.

import { createServer } from 'node:http';

import { createRemoteJWKSet, errors, jwtVerify } from 'jose';

const keys = createRemoteJWKSet(
  new URL(process.env.ASSERTION_KEYS ?? 'http://127.0.0.1:8080/.well-known/jwks.json'),
  // No longer than the answer's own max-age: a key that is withdrawn dies with it.
  { cacheMaxAge: 1000 * Number(process.env.ASSERTION_KEYS_MAX_AGE ?? 300), timeoutDuration: 2000 },
);

const options = {
  algorithms: ['ES256'],
  // Its own type, so that no other token of the same issuer passes.
  typ: 'clerk-authz-assertion+jwt',
  audience: process.env.ASSERTION_AUDIENCE ?? 'orders',
  issuer: process.env.ASSERTION_ISSUER ?? 'clerk-authz',
  clockTolerance: 5,
  // Else nobody looks whether it is from the future.
  maxTokenAge: 30,
  requiredClaims: ['exp', 'iat', 'sub'],
};

/** The claims of an assertion for this request; throws where it is none. */
export async function verified(assertion, method, host) {
  const { payload } = await jwtVerify(assertion, keys, options);
  // Good for one method and one host: a copy that somebody took elsewhere is not for us.
  if (payload.method !== method || payload.host !== withoutPort(host)) {
    throw new errors.JWTClaimValidationFailed('it is for another request', payload);
  }
  return payload;
}

function withoutPort(host) {
  return host.replace(/:\d*$/, '').toLowerCase().replace(/\.$/, '');
}

async function answer(request) {
  const assertions = request.headersDistinct['x-clerk-authz-assertion'] ?? [];
  const hosts = request.headersDistinct.host ?? [];
  if (assertions.length !== 1 || hosts.length !== 1) {
    return [401, { error: 'one assertion and one host are needed' }];
  }
  try {
    const claims = await verified(assertions[0], request.method, hosts[0]);
    const { sub: subject, sid: session = null, org_id: organization = null } = claims;
    return [200, { subject, session, organization }];
  } catch (error) {
    const isRefused = error instanceof errors.JOSEError && !(error instanceof errors.JWKSTimeout);
    return isRefused ? [401, { error: error.code }] : [503, { error: 'the keys cannot be had' }];
  }
}

const server = createServer(async (request, response) => {
  const [status, body] = await answer(request);
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify(body));
});

server.listen(Number(process.env.PORT ?? 0), '127.0.0.1', () => {
  console.log(`listening on http://127.0.0.1:${server.address().port}`);
});
