"""What the demos and the soak share: processes of ours on loopback, each with a log, ended by its id."""

import os
import re
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 30
# What works in the background, calls in flight, and no pause (`start` sets none).
END_SECONDS = 20
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def trusting(authorities):
    """What opens addresses whose certificate one of these signed; a PEM file."""
    handler = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=authorities))
    return urllib.request.build_opener(urllib.request.ProxyHandler({}), handler)


def port(usual, free):
    """The usual one, or any that is free."""
    with socket.socket() as probe:
        if not free:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", 0 if free else usual))
        except OSError:
            raise SystemExit(f"port {usual} is taken; end what listens there, or use --free-ports")
        return probe.getsockname()[1]


def status(url, opener=OPENER):
    """The HTTP status; 0 where nobody answers."""
    try:
        with opener.open(url, timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


# A secret key, a webhook's secret, a private key, and how the head of each JWT begins. The same as in
# tests/it/support/secrets.rs; scripts/test.sh wants more of each.
SECRET = re.compile(r"sk_(test|live)_|whsec_|PRIVATE KEY|eyJ")


class Running:
    """Processes, with their files and logs in one folder."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.processes = {}

    def start(self, name, *command, settings=None):
        """Starts it with these settings and none of the caller's own."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CLERK_")}
        with (self.folder / f"{name}.log").open("a") as log:
            self.processes[name] = subprocess.Popen(
                list(map(str, command)), cwd=self.folder, env={**environment, "CLERK_AUTHZ_DRAIN_PAUSE": "0s", **(settings or {})},
                stdout=log, stderr=log,
                # Ctrl-C is for the script, which ends them in order.
                start_new_session=True,
            )
        return self.processes[name]

    def wait(self, what, condition):
        end = time.monotonic() + START_SECONDS
        while not condition():
            ended = any(process.poll() is not None for process in self.processes.values())
            if ended or time.monotonic() > end:
                raise SystemExit(f"{what} did not start; see its log in {self.folder}")
            time.sleep(0.1)

    def end(self):
        for process in reversed(self.processes.values()):
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for name in self.processes:
            # The offline Clerk shows its keys to whoever starts it.
            log = self.folder / f"{name}.log"
            if {"emulator", "dev"} & set(self.processes[name].args) or not log.exists():
                continue
            for line in log.read_text(errors="replace").splitlines():
                if SECRET.search(line):
                    raise SystemExit(f"{name} has a secret in its log: {line[:60]}…")
