"""Svix's Python library takes the offline Clerk's webhooks. Prints a JSON line per check; run.py
counts them."""

import json
import os
import queue
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from svix.webhooks import Webhook, WebhookVerificationError

URL = os.environ["CLERK_API_URL"]
KEY = os.environ["CLERK_SECRET_KEY"]
PATIENCE_SECONDS = 20
OLD = "whsec_YW5vdGhlci1zZWNyZXQtb2YtMzItYnl0ZXMtbG9uZyE="

arrived = queue.Queue()
answers = queue.Queue()


class Endpoint(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        arrived.put((dict(self.headers.items()), body))
        self.send_response(204 if answers.empty() else answers.get())
        self.end_headers()

    def log_message(self, *_):
        pass


def ask(method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
    request = urllib.request.Request(f"{URL}{path}", data, headers, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=PATIENCE_SECONDS) as answer:
        text = answer.read()
    return json.loads(text) if text else None


def tell(**settings):
    port = server.server_address[1]
    to = {"url": f"http://127.0.0.1:{port}/webhooks/clerk", "retry_milliseconds": [1], **settings}
    return ask("PUT", "/_emulator/webhooks", to)["secret"]


def take():
    return arrived.get(timeout=PATIENCE_SECONDS)


def every_change_is_verified():
    secret = tell()
    user = ask("POST", "/v1/users", {"email_address": ["zoé@example.com"], "first_name": "Zoé 🦀"})
    ask("POST", f"/v1/users/{user['id']}/ban")
    ask("DELETE", f"/v1/users/{user['id']}")
    ask("DELETE", "/v1/organizations/org_acme/memberships/user_bob")
    types = []
    for _ in range(4):
        headers, body = take()
        Webhook(secret).verify(body, headers)
        types.append(json.loads(body)["type"])
    expected = ["user.created", "user.updated", "user.deleted", "organizationMembership.deleted"]
    assert types == expected, types


def a_rotation_is_verified_with_both_secrets_and_no_other():
    secret = tell(old_secrets=[OLD])
    ask("POST", "/v1/users/user_alice/lock")
    headers, body = take()
    Webhook(secret).verify(body, headers)
    Webhook(OLD).verify(body, headers)
    for wrong_secret, wrong_body in [("whsec_AAEC", body), (secret, body + b" ")]:
        try:
            Webhook(wrong_secret).verify(wrong_body, headers)
        except WebhookVerificationError:
            continue
        raise AssertionError("a wrong secret or body was taken")


def an_attempt_and_a_replay_have_their_id_and_signatures_of_their_own():
    secret = tell(retry_milliseconds=[1100])
    answers.put(500)
    ask("POST", "/v1/users/user_alice/unlock")
    first, again = take(), take()
    message = first[0]["svix-id"]
    ask("POST", f"/_emulator/webhooks/messages/{message}/replay")
    replayed = take()
    for headers, body in [first, again, replayed]:
        Webhook(secret).verify(body, headers)
        assert headers["svix-id"] == message and body == first[1]
    assert first[0]["svix-timestamp"] != again[0]["svix-timestamp"]
    assert first[0]["svix-signature"] != again[0]["svix-signature"]


server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
threading.Thread(target=server.serve_forever, daemon=True).start()
for check in [
    every_change_is_verified,
    a_rotation_is_verified_with_both_secrets_and_no_other,
    an_attempt_and_a_replay_have_their_id_and_signatures_of_their_own,
]:
    try:
        check()
        ok, detail = True, ""
    except Exception as error:  # noqa: BLE001 - whatever it is, the check has failed
        ok, detail = False, repr(error)
    print(json.dumps({"name": check.__name__, "ok": ok, "detail": detail}), flush=True)
