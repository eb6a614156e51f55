"""What the suites here share: processes of ours, requests, and what was found."""

import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BINARY = sys.argv[1] if len(sys.argv) > 1 else str(ROOT / "target/debug/clerk-authz")
PATIENCE_SECONDS = 30
JSON = {"content-type": "application/json"}
passed = failed = 0
notes = []


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


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
            # Nobody balances over what is tested here.
            env={**os.environ, "CLERK_AUTHZ_DRAIN_PAUSE": "0s", **(env or {})},
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


def run_parts(parts):
    """Runs each part (its name, whether its tool is there, what it does to a suite), and ends with what
    was found. A part without its tool is skipped; with CI=true that is a failure."""
    skipped = 0
    for name, tool, part in parts:
        if not tool:
            print(f"skipped: {name}: its tool is not installed: run `make setup`")
            skipped += 1
            continue
        suite = []
        try:
            part(suite)
        except AssertionError as error:
            check(suite, "it runs", False, error)
        report(name, suite)
    end(skipped)


def end(skipped=0):
    """The closing line, and the exit code."""
    failures = failed + (skipped if os.environ.get("CI") == "true" else 0)
    print(f"{passed} passed, {failures} failed, {skipped} skipped")
    sys.exit(1 if failures else 0)
