"""Runs the real binary and asks it from every language, as the examples do.

    .venv/bin/python tests/languages/run.py [path of clerk-authz]

Prints a line per language and, last, `N passed, N failed, N skipped`. A toolchain that is not there
is named and skipped; with CI=true that is a failure. Ends only the processes that it started.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile

import harness
from assertions import assertions
from dev import dev
from harness import BINARY, JSON, ROOT, Lines, Process, check, eventually, free_port, notes, report, request

sys.path.insert(0, str(ROOT / "examples/python/gen"))

import grpc  # noqa: E402
from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: E402
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc  # noqa: E402

GRPC, HTTP, CLERK = (f"127.0.0.1:{free_port()}" for _ in range(3))


class Clerk:
    """The offline Clerk and the service; the service can go away while Clerk stays."""

    def __init__(self):
        self.clerk = Process([BINARY, "emulator", "--addr", CLERK])
        eventually("the offline Clerk", lambda: request(f"http://{CLERK}/")[0] == 200)
        self.world = json.loads(request(f"http://{CLERK}/_emulator/world")[2])["instances"][0]
        self.state = tempfile.TemporaryDirectory()
        # What the service misses comes again soon.
        told = {"url": f"http://{HTTP}/webhooks/clerk", "retry_milliseconds": [200] * 20}
        told = request(f"http://{CLERK}/_emulator/webhooks", JSON, json.dumps(told).encode(), "PUT")
        self.webhook_secret = json.loads(told[2])["secret"]
        self.start()

    def start(self):
        self.service = Process(
            [BINARY, "serve", "--grpc-addr", GRPC, "--http-addr", HTTP],
            env={
                "CLERK_PUBLISHABLE_KEY": self.world["publishable_key"],
                "CLERK_AUTHZ_ISSUER": self.world["issuer"],
                "CLERK_AUTHORIZED_PARTIES": "http://localhost:3000",
                "CLERK_SECRET_KEY": self.world["secret_key"],
                "CLERK_API_URL": self.world["issuer"],
                "CLERK_AUTHZ_DATABASE_URL": f"sqlite://{self.state.name}/clerk-authz.db",
                "CLERK_WEBHOOK_SIGNING_SECRET": self.webhook_secret,
            },
        )
        eventually("the service", lambda: request(f"http://{HTTP}/readyz")[0] == 200)

    def token(self, query="", user="user_alice"):
        return request(f"http://{CLERK}/_emulator/token?user={user}{query}")[2]

    def api(self, method, path, body=None):
        """What the offline Clerk's Backend API answers."""
        headers = {**JSON, "authorization": f"Bearer {self.world['secret_key']}"}
        data = json.dumps(body).encode() if body is not None else None
        status, _, text = request(f"http://{CLERK}/v1{path}", headers, data, method)
        assert status < 300, (method, path, status, text)
        return json.loads(text)

    def cookie(self):
        body = json.dumps({"user": "user_alice"}).encode()
        answer = request(
            f"http://{CLERK}/_emulator/tokens", JSON, body
        )
        return json.loads(answer[2])["cookie"]


def example(language, command, cwd, clerk):
    """The web handler of one language: what it answers, and that it fails closed."""
    suite = []
    app = Process(command, cwd=cwd, env={"AUTHZ_ADDR": GRPC, "PORT": "0"})
    try:
        url = app.line_with("listening on").split()[-1]

        def get(headers):
            status, answered, body = request(url, headers)
            return status, answered, json.loads(body)

        bearer = lambda token: {"authorization": f"Bearer {token}"}  # noqa: E731
        # A cold runtime on a busy machine may miss the first deadline; that is a 503, as it should be.
        eventually("it answers", lambda: get(bearer(clerk.token()))[0] == 200)
        status, _, body = get(bearer(clerk.token("&organization=acme")))
        expected = {"user_id": "user_alice", "organization": "org_acme", "role": "org:admin"}
        check(suite, "good token", (status, body) == (200, expected), (status, body))
        status, _, body = get({"cookie": clerk.cookie()})
        check(suite, "good cookie", status == 200 and body["user_id"] == "user_alice", (status, body))
        for name, headers, reason in [
            ("expired", bearer(clerk.token("&expired=true")), "TOKEN_EXPIRED"),
            ("forged", bearer(clerk.token("&forged=true")), "SIGNATURE_INVALID"),
            ("junk", bearer("junk"), "TOKEN_MALFORMED"),
            ("none", {}, "TOKEN_MISSING"),
        ]:
            status, answered, body = get(headers)
            good = status == 401 and body == {"reason": reason}
            check(suite, name, good and answered["www-authenticate"] == "Bearer", (status, body))
        permission(suite, url, bearer, clerk)
        clerk.service.end()
        status, answered, body = get(bearer(clerk.token()))
        check(suite, "service gone: fails closed", status == 503, (status, body))
        check(suite, "service gone: says when", int(answered["retry-after"] or 0) >= 1, answered)
        clerk.start()
        eventually("it reconnects", lambda: get(bearer(clerk.token()))[0] == 200)
        check(suite, "service back: reconnects", True)
    except Exception as error:  # noqa: BLE001 - whatever it is, the suite has failed
        check(suite, "runs", False, repr(error))
    finally:
        app.end()
    report(language, suite)


def watcher(language, command, cwd, clerk):
    """The copy of one language: what changes at Clerk is in it, also what changed while the service was
    away."""
    suite = []
    watch = Process(command, cwd=cwd, env={"AUTHZ_ADDR": GRPC})
    try:
        lines = Lines(watch)
        lines.come_to("complete: ")
        check(suite, "the snapshot is complete", True)
        erin = clerk.api("POST", "/users", {"email_address": [f"{language}@example.com"], "first_name": "Erin"})["id"]
        lines.come_to(f"user {erin} Erin")
        check(suite, "a user is made", True)
        clerk.api("PATCH", f"/users/{erin}", {"first_name": "Eve"})
        lines.come_to(f"user {erin} Eve")
        check(suite, "a user is changed", True)
        clerk.service.end()
        lines.come_to("broken: UNAVAILABLE" if language != "go" else "broken: Unavailable")
        clerk.api("DELETE", f"/users/{erin}")
        clerk.start()
        lines.come_to(f"gone {erin}")
        check(suite, "what was deleted meanwhile is gone", True)
        began_anew = sum(line.startswith("complete: ") for line in lines.lines)
        check(suite, "it went on where it was", began_anew == 1, lines.lines)
    except Exception as error:  # noqa: BLE001 - whatever it is, the suite has failed
        check(suite, "runs", False, repr(error))
    finally:
        watch.end()
    report(f"{language}, a copy", suite)


def permission(suite, url, bearer, clerk):
    """The handler that asks for a permission: a good token is not yet a yes."""

    def post(token):
        status, _, body = request(url, bearer(token), b"", "POST")
        return status, json.loads(body)

    status, body = post(clerk.token("&organization=acme"))
    check(suite, "admin: may", (status, body) == (201, {"organization": "org_acme"}), (status, body))
    for name, token, reason in [
        ("member: may not", clerk.token("&organization=acme", "user_bob"), "PERMISSION_MISSING"),
        ("no organization", clerk.token(), "ORGANIZATION_MISSING"),
    ]:
        status, body = post(token)
        good = status == 403 and body["reason"] == reason and len(body["decision_id"]) == 16
        check(suite, name, good, (status, body))
    status, body = post(clerk.token("&organization=acme&expired=true"))
    check(suite, "expired: denied", (status, body) == (401, {"reason": "TOKEN_EXPIRED"}), (status, body))


def health_and_reflection(clerk):
    suite = []
    with grpc.insecure_channel(GRPC) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        serving = health_pb2.HealthCheckResponse.SERVING
        for name in ["", "clerkauthz.v1.AuthzService", "liveness"]:
            answer = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
            check(suite, f"health {name!r}", answer.status == serving, answer)
        watch = health.Watch(health_pb2.HealthCheckRequest(service=""), timeout=10)
        check(suite, "health watch", next(watch).status == serving)
        watch.cancel()
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        answer = next(reflection.ServerReflectionInfo(iter([asked]), timeout=5))
        names = [service.name for service in answer.list_services_response.service]
        check(suite, "reflection v1alpha", "clerkauthz.v1.AuthzService" in names, names)
    grpcurl = str(ROOT / ".venv/bin/grpcurl")
    for arguments, expected in [
        (["list"], "clerkauthz.v1.AuthzService"),
        (["describe", "clerkauthz.v1.AuthzService"], "rpc VerifySession"),
    ]:
        ran = subprocess.run(
            [grpcurl, "-plaintext", GRPC, *arguments], capture_output=True, text=True, timeout=20
        )
        check(suite, f"grpcurl {arguments[0]}", expected in ran.stdout, ran.stderr)
    token = clerk.token()
    ran = subprocess.run(
        [grpcurl, "-plaintext", "-d", json.dumps({"token": token}), GRPC,
         "clerkauthz.v1.AuthzService/VerifySession"],
        capture_output=True, text=True, timeout=20,
    )
    check(suite, "grpcurl VerifySession", '"userId": "user_alice"' in ran.stdout, ran.stderr)
    ran = subprocess.run([BINARY, "health", "--addr", GRPC], capture_output=True, text=True, timeout=20)
    check(suite, "clerk-authz health", (ran.returncode, ran.stdout.strip()) == (0, "SERVING"), ran)
    for query, code in [("", 0), ("&expired=true", 1)]:
        token = clerk.token(query)
        ran = subprocess.run(
            [BINARY, "verify", "--issuer", clerk.world["issuer"], "--json", "-"],
            input=token, capture_output=True, text=True, timeout=20,
        )
        answer = json.loads(ran.stdout)
        good = ran.returncode == code and answer["accepted"] == (code == 0)
        check(suite, f"clerk-authz verify exits {code}", good, ran)
    key = {**os.environ, "CLERK_SECRET_KEY": clerk.world["secret_key"],
           "CLERK_API_URL": clerk.world["issuer"]}
    for arguments, code, reason in [
        (["--token", clerk.token("&organization=acme"), "--permission", "invoices:create"], 0, "ALLOWED"),
        (["--token", clerk.token(), "--role", "admin"], 1, "ORGANIZATION_MISSING"),
        (["--user", "user_bob", "--organization", "acme", "--role", "admin"], 1, "ROLE_MISMATCH"),
        (["--user", "user_bob", "--organization", "org_acme", "--permission", "sys_memberships:read"],
         0, "ALLOWED"),
        (["--user", "user_bob", "--organization", "org_none", "--role", "admin"], 1,
         "ORGANIZATION_NOT_FOUND"),
    ]:
        ran = subprocess.run(
            [BINARY, "check", "--issuer", clerk.world["issuer"], "--json", *arguments],
            env=key, capture_output=True, text=True, timeout=20,
        )
        answer = json.loads(ran.stdout or "{}")
        good = ran.returncode == code and answer.get("reason") == reason
        check(suite, f"clerk-authz check: {reason}", good and answer["allowed"] == (code == 0), ran)
    ran = subprocess.run(
        [str(ROOT / ".venv/bin/python"), "examples/python/verify.py", clerk.token()],
        cwd=ROOT, env={**os.environ, "AUTHZ_ADDR": GRPC},
        capture_output=True, text=True, timeout=20,
    )
    check(suite, "examples/python/verify.py", ran.stdout.startswith("accepted: user_alice"), ran)
    report("health and reflection", suite)


def main():
    dev()
    skipped = assertions()
    clerk = Clerk()
    code = None
    try:
        health_and_reflection(clerk)
        go = ROOT / ".tools/go/example"
        java = ROOT / "examples/java/target"
        python = str(ROOT / ".venv/bin/python")
        in_java = ["java", "-cp", f"{java}/example.jar:{java}/lib/*"]
        for language, tool, ready, command, watch in [
            ("python", "python3", True, [python, "app.py"], [python, "watch.py"]),
            ("node", "node", (ROOT / "examples/node/node_modules").exists(),
             ["node", "app.mjs"], ["node", "watch.mjs"]),
            ("go", "go", go.exists(), [str(go)], [str(go.with_name("watch"))]),
            ("java", "java", (java / "example.jar").exists(),
             [*in_java, "example.App"], [*in_java, "example.Watch"]),
        ]:
            if shutil.which(tool) and ready:
                example(language, command, ROOT / "examples" / language, clerk)
                watcher(language, watch, ROOT / "examples" / language, clerk)
            else:
                why = "is not built: run `make setup`" if shutil.which(tool) else f"needs {tool}"
                notes.append(f"skipped: {language} {why}")
                skipped += 1
    finally:
        code = clerk.service.end()
        clerk.clerk.end()
        clerk.state.cleanup()
    suite = []
    check(suite, "SIGTERM ends the service with 0", code == 0, code)
    report("end", suite)
    for note in notes:
        print(note)
    harness.end(skipped)


main()
