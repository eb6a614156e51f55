"""Runs the real binary and asks it from every language, as the examples do.

    .venv/bin/python tests/languages/run.py [path of clerk-authz]

Prints a line per language and, last, `N passed, N failed, N skipped`. A toolchain that is not there
is named and skipped; with CI=true that is a failure. Ends only the processes that it started.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "examples/python/gen"))

import grpc  # noqa: E402
from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: E402
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc  # noqa: E402

BINARY = sys.argv[1] if len(sys.argv) > 1 else str(ROOT / "target/debug/clerk-authz")
CI = os.environ.get("CI") == "true"
PATIENCE_SECONDS = 30
JSON = {"content-type": "application/json"}
passed = failed = skipped = 0
notes = []


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


GRPC, HTTP, CLERK = (f"127.0.0.1:{free_port()}" for _ in range(3))


def request(url, headers=None, data=None, method=None):
    """Status, headers and body; an HTTP error is an answer too."""
    asked = urllib.request.Request(url, headers=headers or {}, data=data, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(asked, timeout=10) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


def eventually(what, condition):
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        try:
            if condition():
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"never: {what}")


class Process:
    """A process of ours, ended by its id."""

    def __init__(self, command, cwd=ROOT, env=None):
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def line_with(self, text):
        for line in self.process.stdout:
            if text in line:
                return line.strip()
        raise AssertionError(f"{self.process.args} ended without {text!r}")

    def end(self):
        self.process.terminate()
        try:
            code = self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self.process.stdout.close()
        return code


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


def check(suite, name, condition, detail=""):
    global passed, failed
    suite.append((name, bool(condition), detail))
    if condition:
        passed += 1
    else:
        failed += 1


def report(language, suite):
    good = sum(1 for _, ok, _ in suite if ok)
    print(f"{language}: {good} passed, {len(suite) - good} failed", flush=True)
    for name, ok, detail in suite:
        if not ok:
            print(f"  FAILED {name}: {detail}", flush=True)


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


class Lines:
    """What a process prints, read beside it."""

    def __init__(self, process):
        self.lines = []
        self.next = 0
        reader = threading.Thread(target=self.read, args=(process.process.stdout,), daemon=True)
        reader.start()

    def read(self, stdout):
        for line in stdout:
            self.lines.append(line.strip())

    def come_to(self, start):
        """The next line that begins so."""

        def found():
            while self.next < len(self.lines):
                self.next += 1
                if self.lines[self.next - 1].startswith(start):
                    return True
            return False

        eventually(f"a line {start!r}", found)
        return self.lines[self.next - 1]


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


class Guide:
    """The lines that `clerk-authz dev` prints, in blocks: a title and lines to paste."""

    END = "Ctrl-C ends both."

    def __init__(self, dev):
        lines = []
        for line in dev.process.stdout:
            lines.append(re.sub(r"\x1b\[[0-9;]*m", "", line.rstrip("\n")))
            if lines[-1] == self.END:
                break
        self.text = "\n".join(lines)
        # The last paragraph of the greeting defines what the others use.
        greeting, _, rest = self.text.partition("\n# ")
        self.definitions = greeting.strip().split("\n\n")[-1]
        blocks = ("# " + rest).removesuffix(self.END).strip().split("\n\n") if rest else []
        self.blocks = [(block.split("\n")[0][2:], block.split("\n")[1:]) for block in blocks]

    def paste(self, lines, env):
        """Each line with what it printed and its exit code, all in one shell."""
        mark = "=== done: "
        script = "\n".join([self.definitions, *(f"{line}\ncode=$?; echo; echo '{mark}'$code" for line in lines)])
        ran = subprocess.run(
            ["bash", "-c", script], cwd=ROOT, env=env, text=True, timeout=120,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        parts = re.split(f"^{mark}(\\d+)$", ran.stdout, flags=re.MULTILINE)
        return list(zip(lines, parts[0::2], map(int, parts[1::2]), strict=False))


class Shell:
    """One bash, to which lines are given one after the other, as somebody pastes them."""

    MARK = "=== done: "

    def __init__(self, definitions, env):
        self.process = subprocess.Popen(
            ["bash"], cwd=ROOT, env=env, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        self.run(definitions)

    def run(self, line):
        """What a line prints, and its exit code."""
        self.process.stdin.write(f"{line}\ncode=$?; echo; echo '{self.MARK}'$code\n")
        self.process.stdin.flush()
        printed = []
        for text in self.process.stdout:
            if text.startswith(self.MARK):
                return "".join(printed), int(text.removeprefix(self.MARK))
            printed.append(text)
        raise AssertionError(f"the shell ended at {line!r}")

    def end(self):
        self.process.stdin.close()
        self.process.wait(15)
        self.process.stdout.close()


# What "within a second" may take here, the start of grpcurl included.
SOON_SECONDS = 1.0


def seen_soon(suite, shell, line, expected):
    """Asks until it is answered as the line says, and how long that took."""
    began = time.monotonic()
    while True:
        printed, _ = shell.run(line)
        seconds = time.monotonic() - began
        if expected in printed or seconds > SOON_SECONDS:
            break
    check(suite, f"soon: {line[:60]}: {expected}", expected in printed, (line, printed))
    return seconds


def follow(suite, title, lines, shell, told):
    """Lines that change something at Clerk: each answers as is said behind it, and the watch tells of
    each in its order."""
    slowest = 0.0
    for line in lines:
        asked, _, expected = line.partition("    # ")
        if asked.startswith("authz WatchUsers"):
            # Apart from what the other lines print.
            shell.run(asked.replace(" & ", f" > {told.name} & "))
            eventually("the snapshot", lambda: "snapshotComplete" in Path(told.name).read_text())
            continue
        if asked.startswith("soon "):
            slowest = max(slowest, seen_soon(suite, shell, asked.removeprefix("soon "), expected))
            continue
        if asked == "kill $WATCH":
            watched(suite, title, told)
        printed, code = shell.run(asked)
        good = expected in printed if expected else code == 0 and '"errors"' not in printed
        check(suite, f"{title}: {line[:60]}", good, (line, printed, code))
    if slowest:
        check(suite, f"{title}: within {SOON_SECONDS} s", slowest <= SOON_SECONDS, slowest)
        notes.append(f"dev, {title}: the slowest was seen after {slowest:.2f} s")


def watched(suite, title, told):
    """What the watch printed, in order."""
    if "dropped" in title:
        expected = ["snapshotComplete", '"membershipDeleted"', '"role": "org:member"']
    else:
        expected = ["snapshotComplete", '"firstName": "Dave"', '"firstName": "David"', '"banned": true',
                    '"userDeleted"']

    def found():
        rest = Path(told.name).read_text()
        for word in expected:
            _, at, rest = rest.partition(word)
            if not at:
                return False
        return True

    try:
        eventually(f"{expected} in order", found)
        good = True
    except AssertionError:
        good = False
    check(suite, f"{title}: WatchUsers tells of it", good, Path(told.name).read_text())


def as_titled(line, printed, code, expected):
    """Whether a line of the guide answers as its title says; `expected` is None for a yes."""
    unknown = expected == "CLERK_UNAVAILABLE"
    if line.startswith("authz ExplainDecision"):
        outcome = "ACCEPTED" if expected is None else "CANNOT_TELL" if unknown else "DENIED"
        reason = expected is None or f'"reason": "REASON_{expected}"' in printed
        return code == 0 and f'"outcome": "DECISION_OUTCOME_{outcome}"' in printed and reason
    if line.startswith("authz VerifySession"):
        return '"session": {' in printed and code == 0 if expected is None else expected in printed and code != 0
    if line.startswith("authz CheckOrgPermission"):
        if unknown:
            return code != 0 and "Code: Unavailable" in printed and expected in printed
        if expected is None:
            return code == 0 and '"allowed": true' in printed
        return code == 0 and f'"reason": "REASON_{expected}"' in printed and '"allowed"' not in printed
    if "examples/python/verify.py" in line:
        return code == 0 and printed.strip().startswith("accepted: ")
    if " verify " in line or " check " in line:
        word = "cannot tell" if unknown else "denied" if expected else "allowed" if " check " in line else "accepted"
        ends = 2 if unknown else 1 if expected else 0
        return code == ends and f"\n{word}" in printed and (expected or "") in printed
    # What sets the scene.
    return code == 0


def dev():
    """What `dev` prints to paste, pasted: every line answers as its title says."""
    suite = []
    ports = ["--emulator-addr", "127.0.0.1:0", "--grpc-addr", f"127.0.0.1:{free_port()}",
             "--http-addr", f"127.0.0.1:{free_port()}"]
    # Another shell, in which the lines of an earlier one were pasted.
    stale = {**os.environ, "CLERK_SECRET_KEY": "sk_test_emulatordefault",
             "CLERK_API_URL": "http://127.0.0.1:9", "CLERK_AUTHZ_ISSUER": "http://127.0.0.1:9"}
    process = Process([BINARY, "dev", *ports], env=stale)
    try:
        guide = Guide(process)
        check(suite, "shows no port 0", not re.search(r":0\b", guide.text), guide.text)
        titles = [title for title, _ in guide.blocks]
        for word, least in [("an allow", 2), ("allowed", 5), ("denied, ", 5), ("Clerk goes down", 1), ("users are", 1), ("a session ends", 1), ("a member is dropped", 1), ("the same from Python", 1)]:
            found = sum(title.startswith(word) for title in titles)
            check(suite, f"at least {least} of {word!r}", found >= least, titles)
        env = {key: value for key, value in os.environ.items() if not key.startswith("CLERK_")}
        for title, lines in guide.blocks:
            if "within a second" in title or "dropped" in title:
                shell = Shell(guide.definitions, env)
                with tempfile.NamedTemporaryFile() as told:
                    follow(suite, title, lines, shell, told)
                shell.end()
                continue
            denied = re.match(r"denied, ([A-Z_]+)", title)
            expected = denied and denied[1]
            ran = guide.paste(lines, env)
            check(suite, f"{title}: all lines run", len(ran) == len(lines), ran)
            kinds = ["VerifySession", "CheckOrgPermission", "ExplainDecision", " check ", " verify "]
            asked = {kind for kind in kinds for line in lines if kind in line}
            both = {"CheckOrgPermission", "ExplainDecision", " check "}
            whole = asked in (both, {"VerifySession", "ExplainDecision"}, {" verify "})
            check(suite, f"{title}: is explained", whole, asked)
            for line, printed, code in ran:
                if "CONSISTENCY_LEVEL_FULLY_CONSISTENT" in line:
                    expected = "CLERK_UNAVAILABLE"
                good = as_titled(line, printed, code, expected)
                check(suite, f"{title}: {line[:60]}", good, (line, printed, code))
    except Exception as error:  # noqa: BLE001 - whatever it is, the suite has failed
        check(suite, "runs", False, repr(error))
    finally:
        code = process.end()
    check(suite, "SIGTERM ends it with 0", code == 0, code)
    report("dev", suite)


def main():
    global failed, skipped
    dev()
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
    if CI and skipped:
        failed += skipped
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    sys.exit(1 if failed else 0)


main()
