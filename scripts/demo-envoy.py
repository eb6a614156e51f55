"""Runs a real Envoy, clerk-authz with the offline Clerk, and a small service that knows nothing of
Clerk, all on loopback, and prints lines to paste. `make demo-envoy` starts it.

    .venv/bin/python scripts/demo-envoy.py [--free-ports] [path of clerk-authz]

Ends what it started, by its id, at Ctrl-C or SIGTERM.
"""

import http.server
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
from pathlib import Path

from running import ROOT, Running, port, status

ENVOY = next(ROOT.glob(".venv/lib/python3*/site-packages/envoy/_bin/envoy"), None)
END = "Ctrl-C ends all of it."


class Upstream(http.server.BaseHTTPRequestHandler):
    """Answers with what it received."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        received = {name: value for name, value in self.headers.items() if "envoy" not in name}
        text = json.dumps({"upstream received": self.requestline, **received}, indent=1) + "\n"
        body = text.encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def guide(envoy, http_port, clerk, folder):
    bearer = '-H "authorization: Bearer $TOKEN"'
    member = "TOKEN=$(token 'user_bob&organization=acme')"
    admin = "TOKEN=$(token 'user_alice&organization=acme')"
    return [
        ("signed in: the upstream hears who asks (200)", [
            admin, f"curl -si {envoy}/me {bearer}"]),
        ("the same under a signature, which the upstream can check (200)", [
            admin, f"curl -si {envoy}/me {bearer} | grep -i -e '^HTTP' -e 'authz-assertion'"]),
        ("expired (401 TOKEN_EXPIRED)", [
            "TOKEN=$(token 'user_alice&expired=true')", f"curl -si {envoy}/me {bearer}"]),
        ("an admin's route, and the wrong role (403 ROLE_MISMATCH)", [
            member, f"curl -si {envoy}/admin {bearer}"]),
        ("a header that only pretends: it is gone (200)", [
            member, f"curl -si {envoy}/me {bearer} -H 'x-clerk-user-id: user_mallory'"]),
        ("the same with underscores: Envoy refuses it (400)", [
            f"curl -si {envoy}/me {bearer} -H 'x_clerk_user_id: user_mallory'"]),
        ("an encoded slash: servers read it in two ways (400)", [
            f"curl -si --path-as-is {envoy}/assets/..%2Fadmin"]),
        ("another organization than the token's active one (200)", [
            "TOKEN=$(token user_alice)", f"curl -si {envoy}/orgs/acme/invoices {bearer}"]),
        ("no route is about it (403 ROUTE_UNMATCHED)", [f"curl -si {envoy}/elsewhere"]),
        ("a browser that is known to be signed out is sent to sign in, and comes back (302)", [
            f"curl -si '{envoy}/page/7?tab=2' -H 'sec-fetch-dest: document' -H 'cookie: __clerk_db_jwt=dvb_1'"]),
        ("a browser whose session cookie has expired is sent to Clerk for another (307)", [
            "TOKEN=$(token 'user_alice&expired=true')",
            f"curl -si {envoy}/page -H 'sec-fetch-dest: document' "
            "-H \"cookie: __clerk_db_jwt=dvb_1; __client_uat=1; __session=$TOKEN\""]),
        ("as a browser it goes there, comes back, and is at the page, signed in (200)", [
            "TOKEN=$(token 'user_alice&expired=true')", "JAR=$(mktemp)",
            f"for pair in __clerk_db_jwt=dvb_1 __client_uat=1 __session=$TOKEN; do printf "
            "'127.0.0.1\\tFALSE\\t/\\tFALSE\\t0\\t%s\\t%s\\n' ${pair%%=*} ${pair#*=}; done > $JAR",
            f"curl -siL -b $JAR -c $JAR {envoy}/page -H 'sec-fetch-dest: document'"]),
        ("the policy changes while it runs: members may now (200)", [
            f"sed -i.before 's/role: org:admin/role: org:member/' {folder}/policy.yaml",
            "sleep 3", member, f"curl -si {envoy}/admin {bearer}"]),
        ("a shadow policy is tried beside: it would have denied the page (200)", [
            f"curl -si {envoy}/page {bearer}",
            f"curl -s http://127.0.0.1:{http_port}/metrics | grep policy_shadow_total",
            f"grep 'shadow policy decides otherwise' {folder}/clerk-authz.log"]),
    ]


def main():
    arguments = [argument for argument in sys.argv[1:] if argument != "--free-ports"]
    free = len(arguments) < len(sys.argv) - 1
    binary = Path(arguments[0] if arguments else ROOT / "target/debug/clerk-authz").resolve()
    for needed, mend in [(ENVOY, "make setup"), (binary if binary.exists() else None, "cargo build")]:
        if needed is None:
            sys.exit(f"demo: something is missing: run `{mend}`")
    ports = {usual: port(usual, free) for usual in (10000, 9901, 9000, 50051, 8080, 5050)}
    folder = Path(tempfile.mkdtemp(prefix="clerk-authz-demo-"))
    envoy, clerk = (f"http://127.0.0.1:{ports[usual]}" for usual in (10000, 5050))

    config = (ROOT / "deploy/envoy/envoy.yaml").read_text()
    for usual in (10000, 9901, 9000, 50051):
        config = config.replace(f"port_value: {usual} ", f"port_value: {ports[usual]} ")
    (folder / "envoy.yaml").write_text(config)
    policy = (ROOT / "deploy/envoy/policy.yaml").read_text()
    policy = policy.replace("http://127.0.0.1:10000", envoy)
    # Whoever is signed out signs in at the offline Clerk.
    policy = policy.replace("https://accounts.example.com/sign-in", f"{clerk}/sign-in")
    (folder / "policy.yaml").write_text(policy)
    page = "path: /page/**\n    access: signed_in\n    browser: sign_in"
    shadow = policy.replace(page, "path: /page/**\n    access: denied")
    (folder / "shadow.yaml").write_text(shadow)

    upstream = http.server.ThreadingHTTPServer(("127.0.0.1", ports[9000]), Upstream)
    threading.Thread(target=upstream.serve_forever, daemon=True).start()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    running = Running(folder)
    print(f"demo: files and logs in {folder}", flush=True)
    try:
        running.start("clerk-authz", binary, "dev",
            "--emulator-addr", f"127.0.0.1:{ports[5050]}", "--grpc-addr", f"127.0.0.1:{ports[50051]}",
            "--http-addr", f"127.0.0.1:{ports[8080]}",
            "--handshake", "on", "--authorized-parties", f"http://localhost:3000,{envoy}",
            "--upstream-assertions", "demo", "--policy", folder / "policy.yaml", "--shadow-policy", folder / "shadow.yaml")
        running.wait("clerk-authz", lambda: status(f"http://127.0.0.1:{ports[8080]}/readyz") == 200)
        running.start("envoy", ENVOY, "-c", folder / "envoy.yaml", "--concurrency", "1",
            "--base-id", os.getpid() % 30000, "--log-level", "warning")
        running.wait("Envoy", lambda: status(f"{envoy}/me") == 401)
        print(f"""
client -> Envoy {envoy} -> upstream http://127.0.0.1:{ports[9000]}
             `-> clerk-authz (gRPC 127.0.0.1:{ports[50051]}), with {folder}/policy.yaml

Open in a browser, sign in as anybody, and reload it after more than a minute: {envoy}/page

Paste into another terminal. First this:

token() {{ curl -s "{clerk}/_emulator/token?user=$1"; }}
""")
        for title, lines in guide(envoy, ports[8080], clerk, folder):
            print(f"# {title}", *lines, "", sep="\n")
        print(END, flush=True)
        signal.pause()
    except KeyboardInterrupt:
        pass
    finally:
        running.end()
        upstream.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


main()
