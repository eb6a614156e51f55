"""Restarts two replicas in turn, as an orchestrator does, while clients that balance call them at a rate
that is given; says how many calls failed, and how many needed a second try.

    .venv/bin/python scripts/rolling-restart.py [--calls N] [--restarts N] [--clients N] [--clerk PATH] [path of clerk-authz]

`make rolling-restart` starts it with the binary as it is released: what is measured is whether calls fail, and a slow
build has the clients wait. N calls a second in all (2,000), restarts in all (10), processes that call (4). Each replica
gets SIGTERM, ends with 0, and is started again at the same address. Exits 1 where a call failed or a replica ended
otherwise. The offline Clerk is of the binary `--clerk` (the same), since what is released has none.
"""

import argparse
import asyncio
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import grpc
import grpc.aio

from running import OPENER, ROOT, Running, port, status

sys.path.insert(0, str(ROOT / "proto"))

# The documented retry policy (scripts/balanced.py), with tries that the client counts itself.
SERVICE_CONFIG = {"loadBalancingConfig": [{"round_robin": {}}]}
OPTIONS = [
    ("grpc.service_config", json.dumps(SERVICE_CONFIG)), ("grpc.enable_retries", 0),
    ("grpc.default_authority", "clerk-authz"), ("grpc.max_reconnect_backoff_ms", 1000),
    # Clients of one process would share a connection.
    ("grpc.use_local_subchannel_pool", 1),
]
TRIES, DEADLINE_SECONDS = 5, 5.0
# Calls that a process sends at once, so many times a second.
TICKS_PER_SECOND = 100
SETTLE_SECONDS = 2.0


def client(addresses, token, calls_per_second, until, results):
    asyncio.run(call_until(addresses, token, calls_per_second, until, results))


async def call_until(addresses, token, calls_per_second, until, results):
    messages, services = grpc.protos_and_services("clerkauthz/v1/authz_service.proto")
    request = messages.VerifySessionRequest(token=token)
    codes, failures, slowest = {}, [], 0.0
    answered = retried = 0

    async def call(stub):
        nonlocal answered, retried, slowest
        began = time.monotonic()
        for attempt in range(TRIES):
            try:
                await stub.VerifySession(request, timeout=DEADLINE_SECONDS)
            except grpc.aio.AioRpcError as error:
                name = error.code().name
                codes[name] = codes.get(name, 0) + 1
                # Those that the policy names.
                if error.code() is grpc.StatusCode.UNAVAILABLE and attempt + 1 < TRIES:
                    await asyncio.sleep(0.05 * 2 ** attempt)
                    continue
                failures.append(f"{name}: {error.details()}")
                return
            answered += 1
            retried += attempt > 0
            slowest = max(slowest, time.monotonic() - began)
            return

    async with grpc.aio.insecure_channel(f"ipv4:{addresses}", OPTIONS) as channel:
        stub = services.AuthzServiceStub(channel)
        running, begun, sent = set(), time.monotonic(), 0
        while not until.is_set():
            due = int((time.monotonic() - begun) * calls_per_second)
            for _ in range(due - sent):
                task = asyncio.create_task(call(stub))
                running.add(task)
                task.add_done_callback(running.discard)
            sent = max(sent, due)
            await asyncio.sleep(1 / TICKS_PER_SECOND)
        seconds = time.monotonic() - begun
        await asyncio.gather(*running)
    results.put((answered, retried, codes, failures, slowest, seconds))


class Replicas:
    def __init__(self, running, binary, settings):
        self.running, self.binary, self.settings = running, binary, settings
        self.addresses = {name: (port(0, True), port(0, True)) for name in ("replica-1", "replica-2")}

    def start(self, name):
        grpc_port, http_port = self.addresses[name]
        self.running.start(name, self.binary, "serve", settings={
            **self.settings, "CLERK_AUTHZ_GRPC_ADDR": f"127.0.0.1:{grpc_port}",
            "CLERK_AUTHZ_HTTP_ADDR": f"127.0.0.1:{http_port}"})
        self.running.wait(name, lambda: status(f"http://127.0.0.1:{http_port}/readyz") == 200)

    def restart(self, name):
        """How it ended."""
        process = self.running.processes[name]
        process.terminate()
        code = process.wait(60)
        self.start(name)
        return code

    def grpc(self):
        return ",".join(f"127.0.0.1:{grpc_port}" for grpc_port, _ in self.addresses.values())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--restarts", type=int, default=10)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--clerk")
    parser.add_argument("binary", nargs="?", default=ROOT / "target/release/clerk-authz")
    arguments = parser.parse_args()
    binary = Path(arguments.binary).resolve()
    clerk_binary = Path(arguments.clerk or binary).resolve()
    for path in (binary, clerk_binary):
        if not path.exists():
            sys.exit(f"{path} is missing; `make rolling-restart` builds what it needs")
    if "emulator: no" in subprocess.run([clerk_binary, "--version"], capture_output=True, text=True, check=True).stdout:
        sys.exit(f"{clerk_binary} is built without the offline Clerk; name one that has it, such as --clerk target/debug/clerk-authz")
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="clerk-authz-rolling-") as folder:
        running = Running(folder)
        try:
            clerk = f"http://127.0.0.1:{port(0, True)}"
            running.start("clerk", clerk_binary, "emulator", "--addr", clerk.removeprefix("http://"))
            running.wait("the offline Clerk", lambda: status(f"{clerk}/_emulator/world") == 200)
            with OPENER.open(f"{clerk}/_emulator/world", timeout=10) as answer:
                instance = json.loads(answer.read())["instances"][0]
            with OPENER.open(f"{clerk}/_emulator/token?user=user_alice&lifetime_seconds=3600", timeout=10) as answer:
                token = answer.read().decode().strip()
            replicas = Replicas(running, binary, {
                "CLERK_PUBLISHABLE_KEY": instance["publishable_key"], "CLERK_AUTHZ_ISSUER": instance["issuer"],
                "CLERK_AUTHORIZED_PARTIES": "http://localhost:3000",
                # Nobody asks health here: GOAWAY alone tells the clients.
                "CLERK_AUTHZ_DRAIN_PAUSE": "0s"})
            for name in replicas.addresses:
                replicas.start(name)
            until, results = context.Event(), context.Queue()
            clients = [
                context.Process(target=client, args=(
                    replicas.grpc(), token, arguments.calls / arguments.clients, until, results))
                for _ in range(arguments.clients)]
            for process in clients:
                process.start()
            time.sleep(SETTLE_SECONDS)
            codes = []
            for number in range(arguments.restarts):
                codes.append(replicas.restart(f"replica-{number % 2 + 1}"))
                # Until clients have found it again: the other one is next.
                time.sleep(SETTLE_SECONDS)
            until.set()
            said = [results.get(timeout=60) for _ in clients]
            for process in clients:
                process.join()
        finally:
            running.end()
    answered, retried = sum(of[0] for of in said), sum(of[1] for of in said)
    failures = [failure for of in said for failure in of[3]]
    seconds = max(of[5] for of in said)
    shown = {}
    for of in said:
        for code, count in of[2].items():
            shown[code] = shown.get(code, 0) + count
    print(f"{answered} calls answered at {answered / seconds:.0f}/s over {len(codes)} restarts, "
          f"{len(failures)} failed, {retried} needed a second try", flush=True)
    print(f"tries that failed, by status: {shown or 'none'}; the slowest call took {max(of[4] for of in said):.2f} s; "
          f"replicas ended with {sorted(set(codes))}")
    print(*failures[:3], sep="\n")
    return 1 if failures or not answered or set(codes) != {0} else 0


if __name__ == "__main__":
    sys.exit(main())
