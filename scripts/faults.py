"""Breaks one part after the other under load, as the table "What survives which fault" in docs/operations.md
has them, and says whether what it promises is what is seen.

    .venv/bin/python scripts/faults.py [--seconds-each S] [--clerk-down-minutes M] [path of clerk-authz]

`make faults` starts it. Processes of their own, as in production: an offline Clerk, PostgreSQL, two replicas
with decision logs, a collector, and an edge that hands webhooks to one or the other. All the while each replica
is asked everything at a fixed pace, and people come to be at Clerk, change, and have sessions that end. Each
row breaks a part, holds it so for S seconds (Clerk for M minutes), mends it and waits until all is as before.
A row is held where nothing failed but what the table says, with the reason that it says, calls by token were
quick all the while, what it says to be seen was seen, all healed in time, and everybody who came to be or
changed at Clerk is so in the mirror. One in which only time failed is run once more: other things run on the
machine. Exits 0 where every row is held.
"""

import argparse
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from traces import Receiver  # first: it says how gRPC is to take the start of programs

import grpc

from mixed import Load, Messages
from paced import http_call
from parts import Clock, Edge, Postgres, Road, SmallDisk
from running import ROOT, START_SECONDS, Running, port, status
from verdict import (
    APPLIED_SECONDS, ASKS_CLERK, ASKS_STORE, BY_TOKEN, CUT_MORE_SECONDS, HERE, HOUR, REVOKED_SECONDS, SMALL, TAKEN_SECONDS, THERE,
    TOKEN_SECONDS, WOKEN_SECONDS, Late, May, Row, can_tell, judge, only_late,
)

POLICY = """version: 1
routes:
  - name: me
    path: /me
    access: signed_in
"""
OF_THEN = "a token that was good an hour ago"
# From here on what has to be waited for is waited for.
LONG_SECONDS = 15
# Which part of those that wait for Clerk, or one of them, may miss the answer that it is late. In the short form they are few.
LATE_SHARE, LATE_SHARE_SHORT = 0.1, 0.5
# Calls of each work by token while a part is down: they are made every 0.4 s at least.
LEAST_CALLS, LEAST_CALLS_SHORT = 10, 1
# Of what is wrong with a row.
SHOWN = 10


class Skipped(Exception):
    pass


class Stage:
    """All that runs."""

    def __init__(self, binary, folder, running, seconds, membership_seconds):
        self.binary, self.folder, self.running, self.is_long = binary, folder, running, seconds >= LONG_SECONDS
        self.clock, self.postgres = Clock(folder), Postgres(running, folder)
        (folder / "policy.yaml").write_text(POLICY)
        self.clerk = f"http://127.0.0.1:{port(0, True)}"
        running.start("emulator", binary, "emulator", "--addr", self.clerk.removeprefix("http://"))
        running.wait("the offline Clerk", lambda: status(f"{self.clerk}/_emulator/world") == 200)
        self.instance = json.loads(http_call(f"{self.clerk}/_emulator/world"))["instances"][0]
        self.clerk_road = Road(lambda: socket.create_connection(("127.0.0.1", int(self.clerk.rpartition(":")[2])), 5))
        self.database_road = Road(self.postgres.lead)
        self.collector = f"127.0.0.1:{port(0, True)}"
        self.receiver = Receiver(self.collector, folder / "traces.txt")
        self.ports = {name: (port(0, True), port(0, True)) for name in (HERE, THERE, SMALL)}
        self.load = Load(self.clerk, self.instance["secret_key"], membership_seconds)
        for name, ports in self.ports.items():
            self.load.connect(name, *ports)
        self.edge = Edge({name: self.ports[name][1] for name in (HERE, THERE)}, lambda replica, begun, code: self.load.told(
            "webhook", replica, begun, "ok" if code == 204 else f"HTTP {code}"))
        hooks = {"url": f"http://127.0.0.1:{self.edge.port}/webhooks/clerk", "concurrent": 64,
                 # As often as it may, and for twice as long as anything is held.
                 "retry_milliseconds": [300] * 4 + [max(500, round(seconds * 1000 / 8))] * 16}
        self.hook_secret = json.loads(http_call(f"{self.clerk}/_emulator/webhooks", hooks, "PUT"))["secret"]
        self.membership_seconds, self.kills = membership_seconds, Counter()
        for name in (HERE, THERE):
            self.start(name)
            self.wait_ready(name)

    def settings(self, name):
        grpc_port, http_port = self.ports[name]
        return {
            "CLERK_PUBLISHABLE_KEY": self.instance["publishable_key"], "CLERK_AUTHZ_ISSUER": self.instance["issuer"],
            "CLERK_SECRET_KEY": self.instance["secret_key"], "CLERK_API_URL": f"http://127.0.0.1:{self.clerk_road.port}",
            "CLERK_AUTHZ_API_BUDGET": "100000", "CLERK_WEBHOOK_SIGNING_SECRET": self.hook_secret, "CLERK_AUTHZ_RECONCILE_AT": "off",
            "CLERK_AUTHZ_KEYS_COOLDOWN": "1s", "CLERK_AUTHZ_MEMBERSHIP_MAX_AGE": f"{self.membership_seconds}s",
            "CLERK_AUTHZ_MEMBERSHIP_NEGATIVE_MAX_AGE": "1s", "CLERK_AUTHZ_MIRROR_MAX_AGE": f"{self.membership_seconds}s",
            "CLERK_AUTHZ_POLICY": self.folder / "policy.yaml", "CLERK_AUTHZ_FORWARD_AUTH_FROM": "127.0.0.1",
            "CLERK_AUTHZ_GRPC_ADDR": f"127.0.0.1:{grpc_port}", "CLERK_AUTHZ_HTTP_ADDR": f"127.0.0.1:{http_port}",
        }

    def start(self, name):
        settings = {
            **self.settings(name), **(self.clock.settings if name == HERE else {}),
            "CLERK_AUTHZ_DATABASE_URL": f"postgres://postgres@127.0.0.1:{self.database_road.port}/postgres?sslmode=disable",
            "CLERK_AUTHZ_DECISION_LOG": self.folder / f"{name}.jsonl", "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{self.collector}",
            "OTEL_SERVICE_NAME": name, "OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.2",
            "OTEL_BSP_SCHEDULE_DELAY": "300", "OTEL_BLRP_SCHEDULE_DELAY": "300", "OTEL_EXPORTER_OTLP_TIMEOUT": "1000"}
        return self.running.start(name, self.binary, "serve", settings=settings)

    def wait_ready(self, name):
        until = time.monotonic() + START_SECONDS
        while status(f"{self.load.http[name]}/readyz") != 200:
            if self.running.processes[name].poll() is not None or time.monotonic() > until:
                raise SystemExit(f"{name} did not start; see its log in {self.folder}")
            time.sleep(0.05)

    def log_of(self, name):
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def metric(self, name, beginning):
        """The sum of all that begin so."""
        lines = http_call(f"{self.load.http[name]}/metrics").splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(beginning))

    def faults(self, endpoint=None, **faults):
        http_call(f"{self.clerk}/_emulator/faults", {**({"endpoint": endpoint} if endpoint else {}), **faults}, "PUT")

    def no_faults(self):
        http_call(f"{self.clerk}/_emulator/faults", method="DELETE")

    def end(self):
        """Nothing may stay as it was broken: what stands still would not end."""
        self.load.end()
        for process in (self.running.processes[name] for name in (HERE, THERE) if name in self.running.processes):
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
        if "postgres" in self.running.processes:
            self.postgres.signal_all(signal.SIGCONT)
        if self.receiver:
            self.receiver.end()
        self.edge.end()

    # --- the rows ---

    def nothing(self):
        yield

    def clerk_down(self):
        self.clerk_road.close()
        yield
        self.clerk_road.open()

    def clerk_answers(self, **faults):
        # The load itself makes its changes by these.
        for endpoint in ("users", "sessions"):
            self.faults(endpoint)
        self.faults(**faults)
        yield
        self.no_faults()

    def mostly_says_why(self, seen, *_):
        """The service gives up a tenth of a second before its caller does; on a busy machine some answers take longer."""
        said = Counter(outcome.said for outcome in seen if outcome.work in ASKS_CLERK)
        late, share = said["DEADLINE_EXCEEDED"], LATE_SHARE if self.is_long else LATE_SHARE_SHORT
        return [Late(f"{late} waited to the end of their time")] if late > max(1, said["UNAVAILABLE CLERK_UNAVAILABLE"] * share) else []

    def key_set(self, fault):
        self.faults("jwks", fault=fault)
        yield
        self.no_faults()

    def kill(self, name):
        self.running.processes[name].kill()
        self.running.processes[name].wait()
        self.kills[name] += 1

    def restarted(self):
        """Killed, away for as long as it is held, and started again."""
        self.kill(THERE)
        yield
        self.start(THERE)
        self.wait_ready(THERE)
        yield time.monotonic()

    def restarted_without_clerk(self):
        self.clerk_road.close()
        self.kill(THERE)
        self.start(THERE)
        self.wait_ready(THERE)
        self.ready_again = time.monotonic()
        yield
        self.clerk_road.open()

    def serves_without_clerk(self, seen, _, mended):
        calls = [outcome for outcome in seen if outcome.replica == THERE and outcome.work in BY_TOKEN
                 and self.ready_again + 1 < outcome.begun < mended]
        failed = [outcome for outcome in calls if outcome.said != "ok"]
        if calls and not failed:
            return []
        kind = Late if failed and all(outcome.is_late for outcome in failed) else str
        return [kind(f"started without Clerk: {len(failed)} of {len(calls)} calls by token failed")]

    def database_stopped(self):
        self.postgres.stop()
        yield
        self.postgres.start()

    def database_locked(self):
        lock = self.postgres.psql("-At", stdin=-1, stdout=-1)
        lock.stdin.write("BEGIN; LOCK TABLE clerk_authz.users, clerk_authz.inbox IN ACCESS EXCLUSIVE MODE;\n\\echo locked\n")
        lock.stdin.flush()
        if lock.stdout.readline() != "locked\n":
            raise SystemExit("the database was not locked")
        yield
        # What it holds ends with it.
        lock.communicate("ROLLBACK;\n", timeout=30)

    def database_stands_still(self):
        self.postgres.signal_all(signal.SIGSTOP)
        # Connections that were made meanwhile have processes of their own.
        self.postgres.signal_all(signal.SIGSTOP)
        yield
        self.postgres.signal_all(signal.SIGCONT)

    def waited_its_time(self, seen, *_):
        early = [outcome for outcome in seen if outcome.said == "DEADLINE_EXCEEDED" and outcome.seconds < 9.9]
        return [f"{outcome.work} was given up after {outcome.seconds:.1f} s" for outcome in early]

    def database_slow(self):
        self.database_road.delay_seconds = 0.25
        yield
        self.database_road.delay_seconds = 0.0

    def is_slow(self, seen, broken, mended):
        asked = [outcome.seconds for outcome in seen if outcome.work == "GetUser" and broken < outcome.begun < mended - 0.3]
        wrong = [] if asked and min(asked) >= 0.25 else ["GetUser was not as slow as the database"]
        return wrong + self.waited_its_time(seen)

    def disk_full(self):
        disk = SmallDisk(self.folder)
        if disk.missing:
            raise Skipped(disk.missing)
        process = self.running.start(SMALL, *disk.command, self.binary, "serve", settings={
            **self.settings(SMALL), "CLERK_AUTHZ_DATABASE_URL": f"sqlite://{disk.path}/clerk-authz.db"})
        try:
            self.wait_ready(SMALL)
            told = self.log_of(SMALL).count("make room")
            sent = Messages(self.load, self.hook_secret, SMALL)
            if sent.send("user_ada", "Ada") != "ok":
                raise SystemExit("the service on a small disk takes no webhook")
            self.load.wait_for_name(SMALL, "user_ada", "Ada")
            self.load.start(SMALL, "user_ada", "Ada", asks_clerk=False)
            filler = disk.fill(process)
            ending = threading.Event()
            sender = threading.Thread(target=sent.until, args=(ending,), daemon=True)
            sender.start()
            yield
            os.remove(filler)
            freed = time.monotonic()
            ending.set()
            sender.join(START_SECONDS)
            self.disk_problems = [] if not sender.is_alive() else ["a webhook is not taken, with room again"]
            for user, name in sent.accepted.items():
                if not self.load.wait_for_name(SMALL, user, name):
                    self.disk_problems.append(f"{user} is lost")
            if self.log_of(SMALL).count("make room") == told:
                self.disk_problems.append("the log does not say to make room")
            if time.monotonic() - freed > START_SECONDS:
                self.disk_problems.append("it took too long to go on")
            yield freed
        finally:
            self.load.up.discard(SMALL)
            # What is under way ends.
            time.sleep(0.5)
            if SMALL in self.running.processes:
                process.terminate()
                process.wait(30)

    def clock_stepped(self, seconds):
        if self.clock.missing:
            raise Skipped(self.clock.missing)
        self.clock.step(seconds)
        self.load.steps[HERE] = seconds
        self.stepped = time.monotonic()
        if seconds < 0:
            minted = json.loads(http_call(f"{self.clerk}/_emulator/tokens", {"user": "user_alice", "issued_in_seconds": seconds}))
            for name in (HERE, THERE):
                self.load.ask(OF_THEN, name, lambda name=name: self.load.denied(name, minted["jwt"], "UNAUTHENTICATED TOKEN_EXPIRED"))
        yield
        self.clock.step(0)
        self.load.steps[HERE] = 0

    def denies_by_its_clock(self, seen, _, mended):
        good = [outcome for outcome in seen if outcome.replica == HERE and outcome.said == "ok" and self.stepped < outcome.begun < mended
                and outcome.ended < mended and outcome.work in BY_TOKEN - {"an expired token", "a session that ended before"}]
        return [f"{good[0].work} was accepted by a wrong clock ({len(good)})"] if good else []

    def collector_down(self, silent=False):
        before = {name: self.metric(name, 'clerk_authz_otlp_items_total{signal="traces",outcome="failed"}') for name in (HERE, THERE)}
        said = {name: self.log_of(name).count("collector does not take them") for name in (HERE, THERE)}
        self.receiver.end()
        self.receiver = None
        host, number = self.collector.split(":")
        # Takes connections, as far as the kernel does, and answers nothing.
        deaf = socket.create_server((host, int(number)), backlog=64) if silent else None
        yield
        self.collector_problems = []
        for name in (HERE, THERE):
            if not self.metric(name, 'clerk_authz_otlp_items_total{signal="traces",outcome="failed"}') > before[name]:
                self.collector_problems.append(f"{name} counts nothing that the collector did not take")
            # Once for traces, and once for the log.
            if not 1 <= self.log_of(name).count("collector does not take them") - said[name] <= 2:
                self.collector_problems.append(f"{name} does not say it once in its log")
        if deaf:
            deaf.close()
        self.receiver = Receiver(self.collector, self.folder / "traces.txt")
        size = (self.folder / "traces.txt").stat().st_size
        until = time.monotonic() + 15
        while (self.folder / "traces.txt").stat().st_size == size and time.monotonic() < until:
            time.sleep(0.1)
        if time.monotonic() > until:
            self.collector_problems.append("the collector gets nothing afterwards")

    def paused(self):
        load = self.load
        session, token = load.session()
        load.verify(THERE, token)
        process = self.running.processes[THERE]
        process.send_signal(signal.SIGSTOP)
        yield
        self.pause_problems = []
        if self.is_long:
            # What it had taken to work on the other one does.
            with load.changing:
                load.still.set()
            if wrong := load.wait_until_applied(APPLIED_SECONDS):
                self.pause_problems.append(f"{wrong} people were not applied by the other replica")
            load.still.clear()
        load.end_session(session)
        until = time.monotonic() + 10
        while not load.asked_revoked(HERE, token):
            if time.monotonic() > until:
                self.pause_problems.append("the other replica does not hear of what ended")
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGCONT)
        begun = time.monotonic()
        # What waited in it is answered by what it knew.
        while not (heard := load.asked_revoked(THERE, token)) and time.monotonic() < begun + 10:
            time.sleep(0.01)
        after = time.monotonic() - begun
        if not heard:
            self.pause_problems.append("it does not hear of what ended meanwhile")
        elif after > WOKEN_SECONDS:
            self.pause_problems.append(Late(f"it heard after {after:.2f} s of what ended meanwhile"))
        yield begun

    def ear_cut(self):
        psql = self.postgres.psql("-At", stdin=-1, stdout=-1)
        psql.stdin.write("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' "
                         "AND pid <> pg_backend_pid() \\watch 0.1\n")
        psql.stdin.flush()
        yield
        psql.send_signal(signal.SIGINT)
        said, _ = psql.communicate(timeout=10)
        self.cuts = said.split().count("t")

    def was_cut(self, *_):
        return [] if self.cuts else ["no connection that hears was found"]

    def rows(self):
        store = "UNAVAILABLE STORE_UNAVAILABLE"
        no_clerk, no_keys = "UNAVAILABLE CLERK_UNAVAILABLE", "UNAVAILABLE KEYS_UNAVAILABLE"
        keys_may = May({"an unknown key"}, {no_keys})
        clerk_may = [May(ASKS_CLERK, {no_clerk}), keys_may]
        limited = "UNAVAILABLE CLERK_RATE_LIMITED"
        clerk_must = [("a stranger's membership", no_clerk), ("SyncUser", no_clerk), ("an unknown key", no_keys)]
        store_may = [May(ASKS_STORE, {store}), May({"webhook"}, {"HTTP 503"})]
        # What waits for one statement after the other comes to the end of a call's time.
        hang_may = [*store_may, May(ASKS_STORE, {"DEADLINE_EXCEEDED"})]
        store_must = [("GetUser", store), ("SyncUser", store), ("single use", store), ("webhook", "HTTP 503")]
        # A session that it never accepted is not waited for there.
        sessions = {"a session's first call", "a session that ends"}
        everything = BY_TOKEN | ASKS_STORE | ASKS_CLERK | {"an unknown key", "webhook"} | sessions
        away = May(everything, {"UNAVAILABLE", "DEADLINE_EXCEEDED", "no answer", "CANCELLED"}, frozenset({THERE}))
        there, here = frozenset({THERE}), frozenset({HERE})

        def by_clock(reason):
            denied = BY_TOKEN - {"an expired token"} | {"single use"} | sessions
            return [May(denied, {f"UNAUTHENTICATED {reason}", "HTTP 401", "denied"}, here), May({"webhook"}, {"HTTP 400"}, here)]

        def clock_must(reason):
            return [("VerifySession, remembered", f"UNAUTHENTICATED {reason}"), ("VerifySession, new", f"UNAUTHENTICATED {reason}"),
                    ("forward-auth", "HTTP 401"), ("Check of Envoy", "denied")]

        without = functools.partial
        return [
            Row("nothing is down", self.nothing),
            Row("Clerk is down", self.clerk_down, clerk_may, [*clerk_must, ("membership", "ok"), ("membership", no_clerk)], heals_seconds=17),
            Row("Clerk answers 500", without(self.clerk_answers, fault="server_error"), clerk_may, clerk_must[:1], heals_seconds=17,
                at_least_seconds=2),
            # Who waited for as long as Clerk said may come too late then.
            Row("Clerk answers 429", without(self.clerk_answers, fault="rate_limited", retry_after_seconds=4),
                [*clerk_may, May(ASKS_CLERK, {limited})],
                [("a stranger's membership", limited)], heals_seconds=17, at_least_seconds=2),
            Row("Clerk answers garbage", without(self.clerk_answers, fault="garbage"), clerk_may, clerk_must[:1], heals_seconds=17,
                at_least_seconds=2),
            Row("Clerk answers late", without(self.clerk_answers, slow_milliseconds=6000),
                [*clerk_may, May(ASKS_CLERK, {"DEADLINE_EXCEEDED"})], clerk_must[:1], heals_seconds=17, at_least_seconds=4,
                also=self.mostly_says_why),
            *(Row(f"the key set is {what}", without(self.key_set, fault), [keys_may], clerk_must[2:], at_least_seconds=2)
              for what, fault in (("garbage", "garbage"), ("empty", "no_keys"), ("without end", "endless"))),
            Row("a replica starts while Clerk is down", self.restarted_without_clerk, [*clerk_may, away], clerk_must[:1], there,
                heals_seconds=17, at_least_seconds=2, revoked_seconds=TAKEN_SECONDS, also=self.serves_without_clerk),
            Row("the database is stopped", self.database_stopped, store_may, store_must, revoked_seconds=None, heals_seconds=10,
                at_least_seconds=2),
            Row("the database hangs (a lock)", self.database_locked, hang_may, store_must[:1] + store_must[3:],
                revoked_seconds=None, heals_seconds=10, at_least_seconds=6.5, also=self.waited_its_time),
            Row("the database stands still (SIGSTOP)", self.database_stands_still, hang_may, store_must, revoked_seconds=None,
                heals_seconds=10, at_least_seconds=15, also=self.waited_its_time, long_only="it takes 15 s"),
            # It takes what is written one after the other: more than it can is as where it hangs. What is read is right.
            Row("the database is slow", self.database_slow,
                [May({"SyncUser", "single use"}, {store, "DEADLINE_EXCEEDED"}), May({"webhook"}, {"HTTP 503"})],
                [(work, "ok") for work in ("GetUser", "SyncUser", "single use", "webhook")], revoked_seconds=None,
                at_least_seconds=2, also=self.is_slow),
            Row("the disk is full", self.disk_full, [May({"webhook"}, {"HTTP 503"}, frozenset({SMALL}))], [("webhook", "HTTP 503")],
                asked=frozenset({HERE, THERE, SMALL}), also=lambda *_: self.disk_problems),
            Row("the clock is an hour ahead", without(self.clock_stepped, HOUR), by_clock("TOKEN_EXPIRED"), clock_must("TOKEN_EXPIRED"), here,
                revoked_seconds=None, also=self.denies_by_its_clock),
            # Whose clock is an hour behind cannot know what has run out since.
            Row("the clock is an hour behind", without(self.clock_stepped, -HOUR),
                [*by_clock("TOKEN_NOT_YET_VALID"), May({OF_THEN}, {"accepted"}, here)],
                [*clock_must("TOKEN_NOT_YET_VALID"), (OF_THEN, "accepted")], here, revoked_seconds=None, also=self.denies_by_its_clock),
            Row("the collector is down", self.collector_down, at_least_seconds=2, also=lambda *_: self.collector_problems),
            Row("the collector never answers", without(self.collector_down, silent=True), at_least_seconds=3,
                also=lambda *_: self.collector_problems),
            # What was on its way to it when it stopped: Clerk sends that again.
            Row("a replica stands still (SIGSTOP)", self.paused, [away, May({"webhook"}, {"HTTP 504"}, there)],
                [("VerifySession, new", "DEADLINE_EXCEEDED")], there,
                heals_seconds=5, at_least_seconds=TOKEN_SECONDS + 0.5, revoked_seconds=None, also=lambda *_: self.pause_problems),
            Row("a replica is killed (SIGKILL)", self.restarted, [away], [("VerifySession, new", "UNAVAILABLE")], there, heals_seconds=10,
                revoked_seconds=TAKEN_SECONDS),
            Row("the connection that hears of changes is cut", self.ear_cut, revoked_seconds=REVOKED_SECONDS + CUT_MORE_SECONDS,
                also=self.was_cut),
        ]


def run(row, stage, seconds):
    """What is said of the row, and what is wrong with it."""
    load = stage.load
    broken = time.monotonic()
    steps = row.run()
    try:
        next(steps)
        time.sleep(max(seconds, row.at_least_seconds))
        mended = time.monotonic()
        freed = next(steps, None)
        mended = freed or mended
        with load.changing:
            load.still.set()
        healed = load.wait_until_healed(mended, row.heals_seconds)
        missing = load.wait_until_applied(APPLIED_SECONDS)
        load.wait_until_heard(time.monotonic())
    finally:
        steps.close()
        load.still.clear()
    said, problems = judge(
        row, load.since(broken), broken, mended, healed, missing, LEAST_CALLS if stage.is_long else LEAST_CALLS_SHORT)
    with load.lock:
        # Judged, and done with.
        load.outcomes = [outcome for outcome in load.outcomes if outcome.ended >= mended + (healed or 0)]
        trouble, load.broken = load.broken, []
    problems += [f"the load itself failed: {what}" for what in trouble[:3]]
    return said, problems


def decisions(stage):
    """What the decision logs hold of all that."""
    try:
        return decided(stage)
    except OSError as error:
        return "broken off", [f"{type(error).__name__}: {error}"]


def decided(stage):
    lines = denied = 0
    problems = []
    for name in (HERE, THERE):
        garbage = 0
        for line in (stage.folder / f"{name}.jsonl").read_text().splitlines():
            try:
                denied += json.loads(line)["outcome"] == "denied"
            except ValueError:
                garbage += 1
            lines += 1
        # A kill may cut the line that was being written.
        if garbage > stage.kills[name]:
            problems.append(f"{garbage} lines in the decision log of {name} are no JSON; it was killed {stage.kills[name]} times")
        for outcome in ("dropped", "failed"):
            if stage.metric(name, f'clerk_authz_decision_log_lines_total{{outcome="{outcome}"}}'):
                problems.append(f"{name} has {outcome} records")
    if not denied:
        problems.append("no denial was recorded")
    return f"{lines} records, {denied} of them denials", problems


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds-each", type=float, default=20)
    parser.add_argument("--clerk-down-minutes", type=float, default=10)
    parser.add_argument("--only", default="", help="rows whose name has this in it")
    parser.add_argument("binary", nargs="?", default=ROOT / "target/debug/clerk-authz")
    arguments = parser.parse_args()
    binary = Path(arguments.binary).resolve()
    if not binary.exists():
        sys.exit(f"faults: {binary} is missing: run `cargo build`")
    can_tell()
    clerk_seconds = max(arguments.clerk_down_minutes * 60, arguments.seconds_each)
    folder = Path(tempfile.mkdtemp(prefix="clerk-authz-faults-"))
    running, stage, counts = Running(folder), None, Counter()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(f"faults: {arguments.seconds_each:g} s each, Clerk down for {clerk_seconds / 60:g} minutes; {folder}", flush=True)
    begun = time.monotonic()

    def show(how, name, said, problems):
        print(f"{how}  {name}: {said}" + "".join(f"\n      {problem}" for problem in problems[:SHOWN]), flush=True)

    def say(name, said, problems):
        counts[not problems] += 1
        show("NOT " if problems else "held", name, said, problems)

    try:
        # Remembered for a minute, unless Clerk is not down for as long.
        stage = Stage(binary, folder, running, arguments.seconds_each, 60 if clerk_seconds > 120 else 1)
        load = stage.load
        session, load.ended_token = load.session()
        load.end_session(session)
        load.api("PATCH", "users/user_alice", {"first_name": "Alice"})
        for name in (HERE, THERE):
            load.wait_for_name(name, "user_alice", "Alice")
            until = time.monotonic() + START_SECONDS
            while not load.asked_revoked(name, load.ended_token):
                if time.monotonic() > until:
                    raise SystemExit(f"{name} never heard of a session that ended")
                time.sleep(0.05)
            load.start(name)
        load.start_changes()
        # Connections, and what is looked up once.
        time.sleep(2)
        for row in stage.rows():
            if arguments.only not in row.name:
                continue
            if row.long_only and not stage.is_long:
                print(f"later {row.name}: {row.long_only}, and is run with {LONG_SECONDS} seconds each and more", flush=True)
                continue
            try:
                seconds = clerk_seconds if row.run == stage.clerk_down else arguments.seconds_each
                said, problems = run(row, stage, seconds)
                if only_late(problems):
                    # The machine may have stood still for a moment; what is wrong with the service is so again.
                    counts["again"] += 1
                    show("again", row.name, said, problems)
                    said, problems = run(row, stage, seconds)
                say(row.name, said, problems)
            except (OSError, grpc.RpcError, subprocess.TimeoutExpired) as error:
                say(row.name, "broken off", [f"{type(error).__name__}: {error}"[:300]])
            except Skipped as why:
                counts["skipped"] += 1
                # CI looks for lines that begin so.
                print(f"skipped: {row.name}: {why}", flush=True)
        say("the decision log of all that", *decisions(stage))
    finally:
        if stage:
            stage.end()
        running.end()
        if counts[False] or not counts[True]:
            print(f"faults: logs stay in {folder}", flush=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    more = "".join(f", {counts[what]} {said}" for what, said in (("again", "run again"), ("skipped", "skipped")) if counts[what])
    print(f"faults: {time.monotonic() - begun:.0f} s{more}")
    print(f"{counts[True]} passed, {counts[False]} failed", flush=True)
    return 1 if counts[False] or not counts[True] else 0


try:
    sys.exit(main())
except KeyboardInterrupt:
    sys.exit("faults: broken off")
