"""Lets Clerk's own clients drive the offline Clerk, as strangers would, and Svix's libraries take its
webhooks.

    .venv/bin/python tests/strangers/run.py [path of clerk-authz]

Each client has an offline Clerk of its own. Prints a line per client and, last,
`N passed, N failed, N skipped`. A client that is not there is named and skipped; with CI=true that
is a failure. Ends only the processes that it started.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BINARY = sys.argv[1] if len(sys.argv) > 1 else str(ROOT / "target/debug/clerk-authz")
PATIENCE_SECONDS = 120


class OfflineClerk:
    """The offline Clerk at a free port, ended by its id."""

    def __enter__(self):
        self.process = subprocess.Popen(
            [BINARY, "emulator", "--addr", "127.0.0.1:0"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        found = {}
        for line in self.process.stdout:
            name, _, value = line.strip().partition("=")
            found[name] = value
            if {"CLERK_API_URL", "CLERK_SECRET_KEY"} <= found.keys():
                return found["CLERK_API_URL"], found["CLERK_SECRET_KEY"]
        raise AssertionError("the offline Clerk ended without saying where it is")

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def drive(client, command):
    """Runs a client; it prints a JSON line per check. Says how many were good and how many not."""
    with OfflineClerk() as (url, key):
        # `timeout` ends what hangs, and leaves what it has printed.
        ran = subprocess.run(
            ["timeout", str(PATIENCE_SECONDS), *command],
            env={**os.environ, "CLERK_API_URL": url, "CLERK_SECRET_KEY": key},
            capture_output=True, text=True,
        )
    checks = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    failures = [f"{check['name']}: {check['detail']}" for check in checks if not check["ok"]]
    if ran.returncode != 0 or not checks:
        failures.append(f"ended with {ran.returncode}: {ran.stderr.strip()[-2000:]}")
    passed = sum(1 for check in checks if check["ok"])
    print(f"{client}: {passed} passed, {len(failures)} failed", flush=True)
    for failure in failures:
        print(f"  FAILED {failure}", flush=True)
    return passed, len(failures)


def main():
    passed = failed = skipped = 0
    def with_python(package, script):
        is_there = importlib.util.find_spec(package) is not None
        return is_there, [sys.executable, str(HERE / script)]

    def with_node(package, script):
        is_there = shutil.which("node") and (ROOT / "conformance/node_modules" / package).exists()
        return is_there, ["node", str(HERE / script)]

    for client, (ready, command) in [
        ("clerk-backend-api", with_python("clerk_backend_api", "with_python.py")),
        ("@clerk/backend", with_node("@clerk/backend", "with_node.mjs")),
        ("svix in Python", with_python("svix", "webhooks_with_python.py")),
        ("svix in JavaScript", with_node("svix", "webhooks_with_node.mjs")),
    ]:
        if ready:
            good, bad = drive(client, command)
            passed += good
            failed += bad
        else:
            print(f"skipped: {client} is not installed: run `make setup`")
            skipped += 1
    if os.environ.get("CI") == "true":
        failed += skipped
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    sys.exit(1 if failed else 0)


main()
