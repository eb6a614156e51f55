"""Runs the service under a mixed, bounded load and says whether what it uses stays flat.

    .venv/bin/python scripts/soak.py MINUTES [path of clerk-authz]

`make soak MINUTES=30` starts it. An offline Clerk and the service on a SQLite file are processes of
their own; the load is the same all the time: tokens that are remembered and new ones, bad ones,
decisions by token and by membership, users, forward-auth, webhooks of changes at Clerk, sessions that
end, a watcher that leaves and comes back, and connections that come and go. Every five seconds the
service's own resident memory (without its program's pages), its open descriptors and the p99 of
remembered tokens are written down, to `target/soak.csv` too. Judged is the second half; exits 0 where
all is flat and nothing failed.
"""

import csv
import itertools
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

import grpc

from paced import Paced, http_call
from running import ROOT, Running, port, status

sys.path.insert(0, str(ROOT / "proto"))
messages, services = grpc.protos_and_services("clerkauthz/v1/authz_service.proto")

SAMPLE_SECONDS = 5
# What the second half may bring: the growth of a line laid through its samples.
MEMORY_GROWTH = 0.03
MEMORY_GROWTH_BYTES = 1 << 20
DESCRIPTORS_GROWTH = 3
# The last quarter's p99 against the third quarter's. Other things run on the machine.
P99_FACTOR, P99_MORE_SECONDS = 2, 0.010
# Tokens of the offline Clerk live for a minute.
RENEW_SECONDS = 20
POLICY = """version: 1
routes:
  - name: me
    path: /me
    access: signed_in
"""


class Load(Paced):
    """What is asked of one service; how long remembered tokens take."""

    def __init__(self, clerk, secret, grpc_port, http_port):
        super().__init__(clerk, secret)
        self.target, self.http = f"127.0.0.1:{grpc_port}", f"http://127.0.0.1:{http_port}"
        self.stub = services.AuthzServiceStub(grpc.insecure_channel(self.target))
        self.counts, self.failures, self.latencies = {}, {}, []

    def done(self, name, failure):
        with self.lock:
            self.counts[name] = self.counts.get(name, 0) + 1
            if failure:
                self.failures.setdefault(name, []).append(failure)

    def samples(self):
        with self.lock:
            taken, self.latencies = self.latencies, []
        return taken

    def start(self):
        tokens = itertools.cycle([0, 1, 2, 3])
        known = {}

        def remembered():
            number = next(tokens)
            token, until = known.get(number, ("", 0))
            if time.monotonic() > until:
                token = self.mint()
                self.verify(token)
                known[number] = (token, time.monotonic() + RENEW_SECONDS)
            begun = time.perf_counter()
            self.verify(token)
            with self.lock:
                self.latencies.append(time.perf_counter() - begun)

        def bad():
            for query in ("user=user_alice&expired=true", "user=user_alice&forged=true"):
                try:
                    self.verify(self.mint(query))
                except grpc.RpcError as error:
                    if error.code() == grpc.StatusCode.UNAUTHENTICATED:
                        continue
                    raise
                raise AssertionError(f"{query} was accepted")

        def by_token():
            self.may(token=self.mint())

        def by_user():
            self.may(user_id="user_bob")

        def user():
            self.stub.GetUser(messages.GetUserRequest(user_id="user_alice"), timeout=10)

        changes = itertools.count()

        def change():
            name = f"Alice{next(changes)}"
            self.api("PATCH", "users/user_alice", {"first_name": name})

        def end_a_session():
            session = self.api("POST", "sessions", {"user_id": "user_carol"})["id"]
            self.api("POST", f"sessions/{session}/revoke")

        def forward_auth():
            headers = {
                "authorization": f"Bearer {self.mint()}", "x-forwarded-method": "GET",
                "x-forwarded-host": "app.example.com", "x-forwarded-uri": "/me", "x-forwarded-proto": "https",
            }
            http_call(f"{self.http}/forward-auth", headers=headers)

        def connect():
            with grpc.insecure_channel(self.target) as channel:
                stub = services.AuthzServiceStub(channel)
                stub.VerifySession(messages.VerifySessionRequest(token=self.mint()), timeout=10)

        place = {"token": ""}

        def watch():
            stream = self.stub.WatchUsers(messages.WatchUsersRequest(resume_token=place["token"]))
            end = time.monotonic() + 5
            for message in stream:
                place["token"] = message.resume_token
                if time.monotonic() > end or self.stop.is_set():
                    break
            stream.cancel()

        for name, pause, work in [
            ("VerifySession, remembered", 0.01, remembered), ("VerifySession, new", 0.05, lambda: self.verify(self.mint())),
            ("bad tokens", 0.2, bad), ("CheckOrgPermission, token", 0.05, by_token),
            ("CheckOrgPermission, membership", 0.02, by_user), ("GetUser", 0.02, user), ("a change at Clerk", 0.1, change),
            ("a session that ends", 0.5, end_a_session), ("forward-auth", 0.1, forward_auth),
            ("a connection", 0.2, connect), ("WatchUsers", 0.1, watch), ("/metrics", 5, lambda: http_call(f"{self.http}/metrics")),
        ]:
            self.begin(name, pause, work)

    def verify(self, token):
        self.stub.VerifySession(messages.VerifySessionRequest(token=token), timeout=10)

    def may(self, **subject):
        request = messages.CheckOrgPermissionRequest(organization_id="org_acme", permission="org:invoices:read", **subject)
        if not self.stub.CheckOrgPermission(request, timeout=10).allowed:
            raise AssertionError(f"denied: {subject}")


def sample(process, latencies):
    with open(f"/proc/{process.pid}/status") as file:
        # What it has taken for itself; how much of its program is in memory is the kernel's affair.
        resident = next(int(line.split()[1]) * 1024 for line in file if line.startswith("RssAnon"))
    latencies.sort()
    p99 = latencies[len(latencies) * 99 // 100] if latencies else float("nan")
    return resident, len(os.listdir(f"/proc/{process.pid}/fd")), p99, len(latencies)


def growth(values):
    """What a line through the values grows by, from its first to its last."""
    if len(values) < 3:
        return 0.0
    return statistics.linear_regression(range(len(values)), values).slope * (len(values) - 1)


def can_tell():
    """A verdict that cannot fail says nothing: what leaks is found in samples that are made up."""
    class Quiet:
        counts, failures = {"calls": 1}, {}

    def verdicts(row):
        samples = [(second, *row(second)) for second in range(0, 120, SAMPLE_SECONDS)]
        return [good for _, good, _ in judge(samples, Quiet)]

    mebibyte = 1 << 20
    assert verdicts(lambda _: (40 * mebibyte, 20, 0.005, 1)) == [True] * 4
    assert verdicts(lambda second: (40 * mebibyte + second * mebibyte // 10, 20, 0.005, 1)) == [False, True, True, True]
    assert verdicts(lambda second: (40 * mebibyte, 20 + second // 10, 0.005, 1)) == [True, False, True, True]
    assert verdicts(lambda second: (40 * mebibyte, 20, 0.005 if second < 90 else 0.05, 1)) == [True, True, False, True]
    Quiet.failures = {"calls": ["one"]}
    assert verdicts(lambda _: (40 * mebibyte, 20, 0.005, 1)) == [True, True, True, False]


def judge(samples, load):
    half = samples[len(samples) // 2:]
    third, last = half[: len(half) // 2], half[len(half) // 2:]
    memory, descriptors = ([row[index] for row in half] for index in (1, 2))
    grown, allowed = growth(memory), MEMORY_GROWTH * statistics.mean(memory) + MEMORY_GROWTH_BYTES
    before, after = (statistics.median(row[3] for row in part) for part in (third, last))
    failed = sum(map(len, load.failures.values()))
    return [
        ("memory", grown <= allowed, f"{grown / 2**20:+.2f} MiB in the second half of {statistics.mean(memory) / 2**20:.1f} MiB; at most {allowed / 2**20:+.2f}"),
        ("descriptors", growth(descriptors) <= DESCRIPTORS_GROWTH, f"{growth(descriptors):+.1f} of {statistics.mean(descriptors):.0f}; at most +{DESCRIPTORS_GROWTH}"),
        ("p99", after <= before * P99_FACTOR + P99_MORE_SECONDS, f"{before * 1000:.1f} ms, then {after * 1000:.1f} ms; at most {(before * P99_FACTOR + P99_MORE_SECONDS) * 1000:.1f}"),
        ("failures", failed == 0, f"{failed} of {sum(load.counts.values())} pieces of work"),
    ]


def main():
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 30
    binary = Path(sys.argv[2] if len(sys.argv) > 2 else ROOT / "target/debug/clerk-authz").resolve()
    if not binary.exists():
        sys.exit(f"soak: {binary} is missing: run `cargo build`")
    can_tell()
    folder = Path(tempfile.mkdtemp(prefix="clerk-authz-soak-"))
    (folder / "policy.yaml").write_text(POLICY)
    emulator, grpc_port, http_port = (port(0, True) for _ in range(3))
    clerk = f"http://127.0.0.1:{emulator}"
    running = Running(folder)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        running.start("emulator", binary, "emulator", "--addr", f"127.0.0.1:{emulator}")
        running.wait("the offline Clerk", lambda: status(f"{clerk}/_emulator/world") == 200)
        world = json.loads(http_call(f"{clerk}/_emulator/world"))
        instance = world["instances"][0] if "instances" in world else world
        secret = instance["secret_key"]
        told = json.loads(http_call(f"{clerk}/_emulator/webhooks", {"url": f"http://127.0.0.1:{http_port}/webhooks/clerk"}, "PUT"))
        service = running.start("service", binary, "serve", settings={
            "CLERK_PUBLISHABLE_KEY": instance["publishable_key"], "CLERK_AUTHZ_ISSUER": instance["issuer"],
            "CLERK_SECRET_KEY": secret, "CLERK_API_URL": clerk, "CLERK_AUTHZ_API_BUDGET": "100000",
            "CLERK_WEBHOOK_SIGNING_SECRET": told["secret"], "CLERK_AUTHZ_RECONCILE_AT": "off",
            "CLERK_AUTHZ_DATABASE_URL": f"sqlite://{folder}/clerk-authz.db",
            # Full well before the second half.
            "CLERK_AUTHZ_CACHE_BYTES": "1MiB", "CLERK_AUTHZ_POLICY": str(folder / "policy.yaml"),
            "CLERK_AUTHZ_FORWARD_AUTH_FROM": "127.0.0.1", "CLERK_AUTHZ_LOG": "warn",
            "CLERK_AUTHZ_GRPC_ADDR": f"127.0.0.1:{grpc_port}", "CLERK_AUTHZ_HTTP_ADDR": f"127.0.0.1:{http_port}",
        })
        running.wait("the service", lambda: status(f"http://127.0.0.1:{http_port}/readyz") == 200)
        load = Load(clerk, secret, grpc_port, http_port)
        load.api("PATCH", "users/user_alice", {"first_name": "Alice"})
        running.wait("the mirror", lambda: has_alice(load))
        load.start()
        samples, begun = [], time.monotonic()
        print(f"soak: {minutes:g} minutes; {folder}", flush=True)
        print(f"{'seconds':>8}{'MiB':>9}{'files':>7}{'p99 ms':>9}{'calls':>8}", flush=True)
        while (passed := time.monotonic() - begun) < minutes * 60:
            time.sleep(SAMPLE_SECONDS)
            if service.poll() is not None:
                raise SystemExit(f"soak: the service ended: {(folder / 'service.log').read_text()[-2000:]}")
            row = (round(passed + SAMPLE_SECONDS), *sample(service, load.samples()))
            samples.append(row)
            print(f"{row[0]:>8}{row[1] / 2**20:>9.1f}{row[2]:>7}{row[3] * 1000:>9.1f}{row[4]:>8}", flush=True)
        load.end()
        with (ROOT / "target/soak.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("seconds", "resident_bytes", "descriptors", "p99_seconds", "calls"), *samples])
        for name, count in load.counts.items():
            failures = load.failures.get(name, [])
            print(f"{name:<34}{count:>9} done{len(failures):>6} failed  {failures[0] if failures else ''}")
        verdicts = judge(samples, load)
        for name, good, said in verdicts:
            print(f"{'flat' if good else 'NOT '}  {name}: {said}")
        good = all(good for _, good, _ in verdicts)
        print(f"soak: {'passed' if good else 'FAILED'}, {minutes:g} minutes, {len(samples)} samples", flush=True)
        flat = sum(good for _, good, _ in verdicts)
        print(f"{flat} passed, {len(verdicts) - flat} failed", flush=True)
        return 0 if good else 1
    finally:
        running.end()
        shutil.rmtree(folder, ignore_errors=True)


def has_alice(load):
    try:
        load.stub.GetUser(messages.GetUserRequest(user_id="user_alice"), timeout=5)
    except grpc.RpcError:
        return False
    return True


try:
    sys.exit(main())
except KeyboardInterrupt:
    sys.exit("soak: broken off")
