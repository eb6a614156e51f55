"""Work at a fixed pace, each piece in a thread of its own: what the soak and the faults share."""

import json
import threading
import urllib.request

from running import OPENER


def http_call(url, body=None, method=None, headers=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method, headers={"content-type": "application/json", **(headers or {})})
    with OPENER.open(request, timeout=10) as answer:
        return answer.read().decode()


class Paced:
    """Loops against an offline Clerk and what asks it; what went wrong is kept by `done`."""

    def __init__(self, clerk, secret):
        self.clerk, self.secret = clerk, secret
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.threads = []

    def mint(self, query="user=user_alice&organization=org_acme"):
        return http_call(f"{self.clerk}/_emulator/token?{query}").strip()

    def api(self, method, path, body=None):
        return json.loads(http_call(f"{self.clerk}/v1/{path}", body, method, {"authorization": f"Bearer {self.secret}"}))

    def begin(self, name, pause, work):
        thread = threading.Thread(target=self.repeat, args=(name, pause, work), name=name, daemon=True)
        thread.start()
        self.threads.append(thread)

    def repeat(self, name, pause, work):
        while not self.stop.wait(pause):
            try:
                work()
            except Exception as error:  # noqa: BLE001: whatever it is, it is a failure of this run
                self.done(name, f"{type(error).__name__}: {error}"[:300])
            else:
                self.done(name, None)

    def done(self, name, failure):
        """Called after each piece of work; `failure` is what came of it, if anything."""
        raise NotImplementedError

    def end(self):
        self.stop.set()
        for thread in self.threads:
            thread.join(15)
