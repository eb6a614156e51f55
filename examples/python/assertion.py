"""A service that answers only what came through the authorizer: it believes no header but the signed one.

ASSERTION_KEYS says where the keys are, ASSERTION_AUDIENCE the name that the route policy has for this
service, ASSERTION_ISSUER who vouches.
"""

import http.server
import json
import os
import re

import jwt

TYPE = "clerk-authz-assertion+jwt"
AUDIENCE = os.environ.get("ASSERTION_AUDIENCE", "orders")
ISSUER = os.environ.get("ASSERTION_ISSUER", "clerk-authz")
KEYS = jwt.PyJWKClient(
    os.environ.get("ASSERTION_KEYS", "http://127.0.0.1:8080/.well-known/jwks.json"),
    # No longer than the answer's own max-age: a key that is withdrawn dies with it.
    lifespan=float(os.environ.get("ASSERTION_KEYS_MAX_AGE", "300")),
    timeout=2,
)


def verified(assertion, method, host):
    """The claims of an assertion for this request; else jwt.InvalidTokenError, or
    jwt.PyJWKClientError where there is no such key or none can be had."""
    # Its own type, so that no other token of the same issuer passes.
    if jwt.get_unverified_header(assertion).get("typ") != TYPE:
        raise jwt.InvalidTokenError("this is no assertion")
    key = KEYS.get_signing_key_from_jwt(assertion)
    claims = jwt.decode(
        assertion,
        key.key,
        algorithms=["ES256"],
        audience=AUDIENCE,
        issuer=ISSUER,
        leeway=5,
        options={"require": ["aud", "exp", "iat", "iss", "sub"], "strict_aud": True},
    )
    # Good for one method and one host: a copy that somebody took elsewhere is not for us.
    if (claims.get("method"), claims.get("host")) != (method, without_port(host)):
        raise jwt.InvalidTokenError("it is for another request")
    return claims


def without_port(host):
    return re.sub(r":\d*$", "", host).lower().removesuffix(".")


class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self):
        assertions = self.headers.get_all("x-clerk-authz-assertion", [])
        hosts = self.headers.get_all("host", [])
        if len(assertions) != 1 or len(hosts) != 1:
            return self.send(401, {"error": "one assertion and one host are needed"})
        try:
            claims = verified(assertions[0], self.command, hosts[0])
        except jwt.PyJWKClientConnectionError:
            return self.send(503, {"error": "the keys cannot be had"})
        except (jwt.InvalidTokenError, jwt.PyJWKClientError) as error:
            return self.send(401, {"error": str(error)})
        return self.send(200, {
            "subject": claims["sub"],
            "session": claims.get("sid"),
            "organization": claims.get("org_id"),
        })

    do_GET = do_POST = answer

    def send(self, status, body):
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "0"))), Handler)
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
