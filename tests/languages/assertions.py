"""The example services that believe the signed header alone: what each accepts and refuses.

Assertions are made here, by another library than the service's; then by the service itself.
"""

import base64
import hmac
import http.client
import http.server
import json
import shutil
import tempfile
import threading
import time
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import harness
from harness import BINARY, ROOT, Process, check, eventually, free_port, notes, report, request

TYPE = "clerk-authz-assertion+jwt"
HOST = "app.example.com"
HEADER = "x-clerk-authz-assertion"


class Key:
    def __init__(self, kid):
        self.kid = kid
        self.private = ec.generate_private_key(ec.SECP256R1())

    def jwk(self):
        jwk = jwt.algorithms.ECAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        return {**jwk, "kid": self.kid, "use": "sig", "alg": "ES256"}

    def sign(self, header=None, **changes):
        """A good assertion, with changes; a claim that is None is left out."""
        now = int(time.time())
        claims = {
            "iss": "clerk-authz", "aud": "orders", "sub": "user_alice", "iat": now, "exp": now + 30,
            "jti": "0123456789abcdef", "token_type": "session_token", "sid": "sess_1",
            "org_id": "org_acme", "org_role": "org:admin", "method": "GET", "host": HOST, **changes,
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        header = {"typ": TYPE, "kid": self.kid, **(header or {})}
        return jwt.encode(claims, self.private, "ES256", headers=header)

    def with_the_public_key(self, payload):
        """What passes where the header's `alg` decides what a key is for."""
        pem = self.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        signed = f"{encoded({'alg': 'HS256', 'typ': TYPE, 'kid': self.kid})}.{payload}"
        mac = hmac.digest(pem, signed.encode(), "sha256")
        return f"{signed}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


class Published:
    """Where keys are published: those that are set, to whoever asks."""

    def __init__(self, *keys):
        self.keys = list(keys)
        published = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                body = json.dumps({"keys": [key.jwk() for key in published.keys]}).encode()
                self.send_response(200)
                self.send_header("content-type", "application/jwk-set+json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/.well-known/jwks.json"


class Verifier:
    """An example, and what it answers to a request with these assertions."""

    def __init__(self, command, cwd, keys):
        env = {"PORT": "0", "ASSERTION_KEYS": keys, "ASSERTION_AUDIENCE": "orders",
               "ASSERTION_KEYS_MAX_AGE": "1"}
        self.process = Process(command, cwd=cwd, env=env)
        self.addr = self.process.line_with("listening on").split("//")[-1]

    def ask(self, *assertions, method="GET", host=HOST):
        connection = http.client.HTTPConnection(self.addr, timeout=10)
        connection.putrequest(method, "/orders", skip_host=True)
        connection.putheader("host", host)
        connection.putheader("content-length", "0")
        # What nobody may believe without the signature.
        connection.putheader("x-clerk-user-id", "user_mallory")
        for assertion in assertions:
            connection.putheader(HEADER, assertion)
        connection.endheaders()
        answer = connection.getresponse()
        body = json.loads(answer.read())
        connection.close()
        return answer.status, body


def encoded(part):
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def refusals(key):
    """What is wrong, the assertion, and the request that bears it."""
    good = key.sign()
    header, payload, signature = good.split(".")
    claims = jwt.decode(good, options={"verify_signature": False})
    elsewhere = encoded({**claims, "sub": "user_mallory"})
    now = int(time.time())
    unsigned = encoded({"alg": "none", "typ": TYPE, "kid": key.kid})
    return [
        ("tampered: another subject", f"{header}.{elsewhere}.{signature}", {}),
        ("tampered: another signature", f"{header}.{payload}.{signature[:-4]}AAAA", {}),
        ("no signature", f"{header}.{payload}.", {}),
        ("alg none", f"{unsigned}.{payload}.", {}),
        ("signed with the public key", key.with_the_public_key(payload), {}),
        ("expired", key.sign(iat=now - 60, exp=now - 30), {}),
        ("without an end", key.sign(exp=None), {}),
        ("from the future", key.sign(iat=now + 60, exp=now + 90), {}),
        ("for another upstream", key.sign(aud="billing"), {}),
        ("for no upstream", key.sign(aud=None), {}),
        ("of another issuer", key.sign(iss="https://clerk.example.com"), {}),
        ("of another type", key.sign(header={"typ": "JWT"}), {}),
        ("about nobody", key.sign(sub=None), {}),
        ("of a key that nobody published", Key(key.kid).sign(), {}),
        ("of a key with another name", Key("unknown").sign(), {}),
        ("replayed on another host", good, {"host": "admin.example.com"}),
        ("replayed with another method", good, {"method": "POST"}),
        ("for no host", key.sign(host=None), {}),
        ("no assertion", None, {}),
        ("junk", "junk", {}),
    ]


def judged(suite, command, cwd):
    """Assertions of all kinds, and a rotation."""
    old, new = Key("old"), Key("new")
    published = Published(old)
    verifier = Verifier(command, cwd, published.url)
    try:
        good = (200, {"subject": "user_alice", "session": "sess_1", "organization": "org_acme"})
        eventually("it accepts a good one", lambda: verifier.ask(old.sign())[0] == 200)
        for name, request in [("as it is", {}), ("with a port", {"host": f"{HOST}:8443"}),
                              ("in upper case", {"host": HOST.upper()})]:
            answer = verifier.ask(old.sign(), **request)
            check(suite, f"good, the host {name}", answer == good, answer)
        for name, assertion, asked in refusals(old):
            answer = verifier.ask(*([assertion] if assertion else []), **asked)
            check(suite, f"refused: {name}", answer[0] == 401 and set(answer[1]) == {"error"}, answer)
        answer = verifier.ask(old.sign(), old.sign(sub="user_mallory"))
        check(suite, "refused: two assertions", answer[0] == 401, answer)

        published.keys = [old, new]
        eventually("the next key is known", lambda: verifier.ask(new.sign())[0] == 200)
        answer = verifier.ask(old.sign())
        check(suite, "rotation: the old key is good in the overlap", answer == good, answer)
        published.keys = [new]
        eventually("the old key is refused after it", lambda: verifier.ask(old.sign())[0] == 401)
        answer = verifier.ask(new.sign())
        check(suite, "rotation: and the new one is good", answer == good, answer)
    finally:
        verifier.process.end()
        published.server.shutdown()


class Vouched:
    """The service, behind which these examples would stand."""

    POLICY = """version: 1
routes:
  - {name: orders, path: /orders, access: signed_in, upstream: orders}
  - {name: billing, path: /billing, access: signed_in, upstream: billing}
"""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()
        policy = Path(self.folder.name, "policy.yaml")
        policy.write_text(self.POLICY)
        self.clerk, self.http = (f"127.0.0.1:{free_port()}" for _ in range(2))
        self.process = Process([
            BINARY, "dev", "--emulator-addr", self.clerk, "--grpc-addr", f"127.0.0.1:{free_port()}",
            "--http-addr", self.http, "--policy", str(policy), "--forward-auth-from", "127.0.0.1",
        ])
        eventually("the service", lambda: request(f"http://{self.http}/readyz")[0] == 200)
        self.token = request(f"http://{self.clerk}/_emulator/token?user=user_alice&organization=acme")[2]

    def assertion(self, path):
        asked = {
            "x-forwarded-method": "GET", "x-forwarded-host": HOST, "x-forwarded-uri": path,
            "x-forwarded-proto": "https", "authorization": f"Bearer {self.token}",
        }
        status, headers, body = request(f"http://{self.http}/forward-auth", asked)
        assert status == 200, (status, body)
        return headers[HEADER]

    def end(self):
        self.process.end()
        self.folder.cleanup()


def vouched(suite, command, cwd, service):
    """What the service itself makes."""
    verifier = Verifier(command, cwd, f"http://{service.http}/.well-known/jwks.json")
    try:
        status, body = verifier.ask(service.assertion("/orders"))
        good = status == 200 and (body["subject"], body["organization"]) == ("user_alice", "org_acme")
        check(suite, "the service's own is good", good, (status, body))
        for name, assertion, asked in [
            ("for another upstream", service.assertion("/billing"), {}),
            ("replayed on another host", service.assertion("/orders"), {"host": "admin.example.com"}),
            ("replayed with another method", service.assertion("/orders"), {"method": "POST"}),
            ("a session token", service.token, {}),
        ]:
            answer = verifier.ask(assertion, **asked)
            check(suite, f"refused, the service's own: {name}", answer[0] == 401, answer)
    finally:
        verifier.process.end()


def assertions():
    """Each language; how many could not be run."""
    skipped = 0
    examples = ROOT / "examples"
    go = ROOT / ".tools/go/assertion"
    service = Vouched()
    try:
        for language, tool, ready, command in [
            ("python", "python3", True, [str(ROOT / ".venv/bin/python"), "assertion.py"]),
            ("node", "node", (examples / "node/node_modules/jose").exists(), ["node", "assertion.mjs"]),
            ("go", "go", go.exists(), [str(go)]),
        ]:
            if not (shutil.which(tool) and ready):
                notes.append(f"skipped: {language}, assertions: run `make setup`, with {tool}")
                skipped += 1
                continue
            suite = []
            try:
                judged(suite, command, examples / language)
                vouched(suite, command, examples / language, service)
            except Exception as error:  # noqa: BLE001 - whatever it is, the suite has failed
                check(suite, "runs", False, repr(error))
            report(f"{language}, assertions", suite)
    finally:
        service.end()
    return skipped


if __name__ == "__main__":
    without = assertions()
    print(*notes, sep="\n")
    harness.end(without)
