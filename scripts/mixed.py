"""All that replicas are asked while their parts are broken, and what came of it."""

import base64
import bisect
import contextlib
import functools
import hashlib
import hmac
import itertools
import json
import sys
import threading
import time
import urllib.error
import urllib.request

import grpc

from paced import Paced, http_call
from running import OPENER, ROOT, START_SECONDS
from verdict import (
    APPLIED_SECONDS, ASKS_CLERK, ASKS_STORE, BY_TOKEN, CALL_SECONDS, HERE, HOUR, MEMBERSHIP_SECONDS, SMALL, THERE,
    TOKEN_SECONDS, Outcome,
)

sys.path.insert(0, str(ROOT / "proto"))
messages, services = grpc.protos_and_services("clerkauthz/v1/authz_service.proto")
from google.rpc import error_details_pb2, status_pb2  # noqa: E402: of the same folder

RENEW_SECONDS = 20


def reason_of(error):
    """The status and our reason."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info):
                    return f"{error.code().name} {info.reason}"
    return error.code().name


def field(number, content):
    """A field of a protobuf message that has a length, which is all that Envoy's question needs."""
    length, size = len(content), b""
    while length > 127:
        size, length = size + bytes([length & 127 | 128]), length >> 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + content


def envoy_asks(token):
    """CheckRequest of Envoy: attributes (1), request (4), http (2), and in it method, headers, path, host, scheme."""
    header = field(1, b"authorization") + field(2, f"Bearer {token}".encode())
    http = field(2, b"GET") + field(3, header) + field(4, b"/me") + field(5, b"app.example.com") + field(6, b"https")
    return field(1, field(4, field(2, http)))


class Load(Paced):
    def __init__(self, clerk, secret, membership_seconds):
        super().__init__(clerk, secret)
        self.membership_seconds = membership_seconds
        self.outcomes, self.broken = [], []
        self.stubs, self.envoys, self.http, self.channels, self.up, self.asked = {}, {}, {}, {}, set(), set()
        self.expected, self.confirmed = {}, {}
        self.still, self.changing = threading.Event(), threading.Lock()
        self.ended_token = ""
        # When the sessions ended that not every replica has heard of.
        self.unheard = []
        # How far each replica's clock is ahead.
        self.steps = dict.fromkeys((HERE, THERE, SMALL), 0)

    def done(self, name, failure):
        """What fails here is the load itself: the calls' own failures are outcomes."""
        if failure:
            with self.lock:
                self.broken.append(f"{name}: {failure}")

    def told(self, work, replica, begun, said):
        with self.lock:
            self.outcomes.append(Outcome(begun, time.monotonic(), work, replica, said))

    def ask(self, work, replica, call):
        begun = time.monotonic()
        try:
            said = call() or "ok"
        except grpc.RpcError as error:
            said = reason_of(error)
        except urllib.error.HTTPError as error:
            said = f"HTTP {error.code}"
        except OSError:
            said = "no answer"
        self.told(work, replica, begun, said)
        return said

    def since(self, moment):
        """What ended after it."""
        with self.lock:
            # They stand in the order in which they ended.
            return self.outcomes[bisect.bisect_left(self.outcomes, moment, key=lambda outcome: outcome.ended):]

    # --- calls ---

    def verify(self, replica, token, seconds=TOKEN_SECONDS, **more):
        self.stubs[replica].VerifySession(messages.VerifySessionRequest(token=token, **more), timeout=seconds)

    def denied(self, replica, token, *reasons, seconds=TOKEN_SECONDS):
        """Nothing where it is denied for one of these reasons, as it has to be."""
        try:
            self.verify(replica, token, seconds)
        except grpc.RpcError as error:
            said = reason_of(error)
            return None if said in reasons else said
        return "accepted"

    def may(self, replica, allowed, **subject):
        step = self.steps[replica]
        request = messages.CheckOrgPermissionRequest(organization_id="org_acme", permission="org:invoices:read", **subject)
        answer = self.stubs[replica].CheckOrgPermission(request, timeout=TOKEN_SECONDS if "token" in subject else MEMBERSHIP_SECONDS)
        if answer.allowed != allowed:
            return "allowed" if answer.allowed else "denied"
        if "user_id" in subject:
            age = time.time() - answer.as_of.ToNanoseconds() / 1e9
            # By the clock of who answers, with the time of the call itself.
            if not any(-1 <= age + ahead <= self.membership_seconds + 2 for ahead in {self.steps[replica], step}):
                return "answered by what is too old" if age + step > 0 else "answered by what is from the future"
        return None

    def name_of(self, replica, user):
        answer = self.stubs[replica].GetUser(messages.GetUserRequest(user_id=user), timeout=CALL_SECONDS)
        return answer.user.first_name

    def envoy(self, replica, token):
        answer = self.envoys[replica](envoy_asks(token), timeout=TOKEN_SECONDS)
        # ok_response is field 3, denied_response field 2; the status before it may have a length of its own.
        fields, at = set(), 0
        while at < len(answer):
            number, at = answer[at] >> 3, at + 1
            length = shift = 0
            while True:
                byte, at = answer[at], at + 1
                length, shift = length | (byte & 127) << shift, shift + 7
                if byte < 128:
                    break
            fields, at = fields | {number}, at + length
        return None if 3 in fields and 2 not in fields else "denied"

    def forward_auth(self, replica, token):
        request = urllib.request.Request(f"{self.http[replica]}/forward-auth", headers={
            "authorization": f"Bearer {token}", "x-forwarded-method": "GET", "x-forwarded-host": "app.example.com",
            "x-forwarded-uri": "/me", "x-forwarded-proto": "https"})
        OPENER.open(request, timeout=TOKEN_SECONDS).close()

    # --- what is asked all the while ---

    def connect(self, replica, grpc_port, http_port):
        channel = grpc.insecure_channel(f"127.0.0.1:{grpc_port}", [
            # Found again soon after it is back.
            ("grpc.initial_reconnect_backoff_ms", 100), ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 300)])
        self.channels[replica] = channel
        self.stubs[replica] = services.AuthzServiceStub(channel)
        self.envoys[replica] = channel.unary_unary("/envoy.service.auth.v3.Authorization/Check")
        self.http[replica] = f"http://127.0.0.1:{http_port}"

    def start(self, replica, store_user="user_alice", store_name="Alice", asks_clerk=True):
        """From now on, until it is taken from `up`; again after that."""
        self.up.add(replica)
        if replica in self.asked:
            return
        self.asked.add(replica)
        held = {"token": "", "until": 0.0}

        def remembered():
            if time.monotonic() > held["until"]:
                held["token"] = self.mint("user=user_alice&organization=org_acme&lifetime_seconds=600")
                held["until"] = time.monotonic() + RENEW_SECONDS
            self.ask("VerifySession, remembered", replica, lambda: self.verify(replica, held["token"]))

        def by_token(work, call):
            token = self.mint()
            self.ask(work, replica, lambda: call(replica, token))

        def expired():
            token = self.mint("user=user_alice&expired=true")
            self.ask("an expired token", replica, lambda: self.denied(
                replica, token, "UNAUTHENTICATED TOKEN_EXPIRED", "UNAUTHENTICATED TOKEN_NOT_YET_VALID"))

        def unknown_key():
            minted = json.loads(http_call(f"{self.clerk}/_emulator/tokens", {
                "user": "user_alice", "header": {"kid": f"ins_{time.monotonic_ns()}"}}))
            self.ask("an unknown key", replica, lambda: self.denied(
                replica, minted["jwt"], "UNAUTHENTICATED KEY_UNKNOWN", seconds=CALL_SECONDS))

        def get_user():
            return None if self.name_of(replica, store_user) == store_name else "another name"

        def sync():
            self.stubs[replica].SyncUser(messages.SyncUserRequest(user_id="user_carol"), timeout=CALL_SECONDS)

        numbers = itertools.count()
        works = [
            ("VerifySession, remembered", 0.05, remembered),
            ("VerifySession, new", 0.2, lambda: by_token("VerifySession, new", self.verify)),
            ("permission by token", 0.25, lambda: by_token("permission by token", lambda replica, token: self.may(replica, True, token=token))),
            ("forward-auth", 0.25, lambda: by_token("forward-auth", self.forward_auth)),
            ("Check of Envoy", 0.25, lambda: by_token("Check of Envoy", self.envoy)),
            ("an expired token", 0.4, expired),
            ("GetUser", 0.1, lambda: self.ask("GetUser", replica, get_user)),
        ]
        if asks_clerk:
            works += [
                ("a session that ended before", 0.25, lambda: self.ask("a session that ended before", replica, lambda: self.denied(
                    replica, self.ended_token, "UNAUTHENTICATED SESSION_REVOKED"))),
                ("membership", 0.1, lambda: self.ask("membership", replica, lambda: self.may(replica, True, user_id="user_bob"))),
                ("a stranger's membership", 0.25, lambda: self.ask("a stranger's membership", replica, lambda: self.may(
                    replica, False, user_id=f"user_nobody{replica[-1]}{next(numbers)}"))),
                ("an unknown key", 0.4, unknown_key),
                ("SyncUser", 0.4, lambda: self.ask("SyncUser", replica, sync)),
                ("single use", 0.4, lambda: by_token("single use", lambda replica, token: self.verify(
                    replica, token, CALL_SECONDS, single_use=True))),
            ]
        for name, pause, work in works:
            self.begin(name, pause, functools.partial(self.while_up, replica, work))

    def while_up(self, replica, work):
        if replica in self.up:
            work()

    def start_changes(self):
        """People come to be at Clerk, and are called otherwise a moment later; sessions end."""
        numbers, latest = itertools.count(), []

        def change():
            with self.changing:
                if self.still.is_set():
                    return
                number = next(numbers)
                user = self.api("POST", "users", {"email_address": [f"new{number}@example.com"], "first_name": f"New{number}"})["id"]
                with self.lock:
                    self.expected[user] = f"New{number}"
                latest.append(user)
                if len(latest) > 3:
                    before = latest.pop(0)
                    self.api("PATCH", f"users/{before}", {"first_name": f"Changed{number}"})
                    with self.lock:
                        self.expected[before] = f"Changed{number}"

        def revoke():
            session, token = self.session()
            asked = []
            for name in (HERE, THERE):
                before = time.monotonic()
                said = self.ask("a session's first call", name, lambda name=name: self.verify(name, token))
                if said == "ok":
                    asked.append(name)
                else:
                    # Who never accepted it cannot be seen to hear of its end.
                    self.told("a session that ends", name, before, said)
            self.end_session(session)
            begun = time.monotonic()
            with self.lock:
                self.unheard.append(begun)
            # Side by side: one that answers late must not make the other look so.
            waiting = [threading.Thread(target=self.wait_for_end, args=(name, token, begun), daemon=True) for name in asked]
            for one in waiting:
                one.start()
            for one in waiting:
                one.join()
            with self.lock:
                self.unheard.remove(begun)

        self.begin("changes", 0.2, change)
        # Several, since each lasts until it is heard of.
        for _ in range(2):
            self.begin("a session that ends", 0.5, revoke)

    def session(self):
        """One of Carol's, and a token of it."""
        session = self.api("POST", "sessions", {"user_id": "user_carol"})["id"]
        minted = http_call(f"{self.clerk}/_emulator/tokens", {"user": "user_carol", "session": session, "lifetime_seconds": 2 * HOUR})
        return session, json.loads(minted)["jwt"]

    def end_session(self, session):
        self.api("POST", f"sessions/{session}/revoke")

    def wait_for_end(self, replica, token, ended):
        """Until it denies what ended then."""
        while not self.asked_revoked(replica, token):
            if time.monotonic() > ended + APPLIED_SECONDS or self.stop.is_set():
                self.told("a session that ends", replica, ended, "never heard of")
                return
            self.stop.wait(0.02)
        self.told("a session that ends", replica, ended, "ok")

    def asked_revoked(self, replica, token, seconds=0.5):
        try:
            self.verify(replica, token, seconds)
        except grpc.RpcError as error:
            return reason_of(error) == "UNAUTHENTICATED SESSION_REVOKED"
        return False

    # --- whether all is as before ---

    def missing(self):
        """Who is otherwise at Clerk than in the mirror."""
        with self.lock:
            expected = dict(self.expected)
        replica = sorted(self.up & {HERE, THERE})[0]
        wrong = 0
        for user, name in expected.items():
            if self.confirmed.get(user) == name:
                continue
            try:
                found = self.name_of(replica, user)
            except grpc.RpcError:
                found = None
            if found == name:
                self.confirmed[user] = name
            else:
                wrong += 1
        return wrong

    def wait_for_name(self, replica, user, name):
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            with contextlib.suppress(grpc.RpcError):
                if self.name_of(replica, user) == name:
                    return True
            time.sleep(0.05)
        return False

    def wait_until_applied(self, seconds):
        """Who is otherwise at Clerk still, after so long."""
        until = time.monotonic() + seconds
        while (wrong := self.missing()) and time.monotonic() < until:
            time.sleep(0.2)
        return wrong

    def wait_until_heard(self, moment):
        """Of all sessions that ended before; each is given up some time."""
        while True:
            with self.lock:
                if all(ended > moment for ended in self.unheard):
                    return
            time.sleep(0.05)

    def wait_until_healed(self, mended, seconds):
        """How long after `mended` something was not well for the last time; None where it goes on."""
        until = mended + seconds + 5
        while time.monotonic() < until:
            time.sleep(0.1)
            ended = self.since(mended)
            bad = [outcome.ended for outcome in ended if outcome.said != "ok" and outcome.work not in {"webhook"}]
            last = max(bad, default=mended)
            well = {(outcome.work, outcome.replica) for outcome in ended if outcome.begun > last and outcome.said == "ok"}
            wanted = {(thread.name, replica) for thread in self.threads for replica in self.up
                      if thread.name in BY_TOKEN | ASKS_STORE | ASKS_CLERK | {"an unknown key"}
                      and (replica != SMALL or thread.name in (BY_TOKEN | {"GetUser"}) - {"a session that ended before"})}
            if wanted <= well and time.monotonic() - last > 0.6:
                return last - mended
        return None


class Messages:
    """Webhooks as Clerk signs them, to one replica."""

    def __init__(self, load, secret, replica):
        self.load, self.replica = load, replica
        self.key = base64.b64decode(secret.removeprefix("whsec_"))
        self.accepted, self.numbers = {}, itertools.count()

    def send(self, user, name, number=None):
        number = next(self.numbers) if number is None else number
        now = int(time.time())
        body = json.dumps({"object": "event", "type": "user.updated", "timestamp": now * 1000, "instance_id": "ins_1", "data": {
            "id": user, "object": "user", "first_name": name, "banned": False, "email_addresses": [], "created_at": 1,
            "updated_at": number + 5}})
        identity = f"msg_{number}"
        signed = base64.b64encode(hmac.digest(self.key, f"{identity}.{now}.{body}".encode(), hashlib.sha256)).decode()
        request = urllib.request.Request(f"{self.load.http[self.replica]}/webhooks/clerk", body.encode(), {
            "content-type": "application/json", "svix-id": identity, "svix-timestamp": str(now), "svix-signature": f"v1,{signed}"})
        return self.load.ask("webhook", self.replica, lambda: OPENER.open(request, timeout=CALL_SECONDS).close())

    def until(self, ending):
        """One after the other, each until it is taken. What has room in pages that are there already is still taken: they are long."""
        while not ending.is_set():
            number = next(self.numbers)
            name = f"Ada{number}" + "x" * 6000
            while self.send(f"user_{number}", name, number) != "ok":
                time.sleep(0.1)
            self.accepted[f"user_{number}"] = name
            time.sleep(0.05)
