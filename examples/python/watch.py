"""Keeps a copy of the users:  AUTHZ_ADDR=127.0.0.1:50051 python watch.py"""

import os
import random
import time

import grpc
from clerk_authz import Authz, details_of

# The first pause after a break, and the longest.
PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.2, 10.0


class Copy:
    """The users, in memory. One that shall outlive the process keeps users, marks and the token in one
    transaction."""

    def __init__(self):
        self.users = {}
        self.token = ""
        # Who has come since the snapshot was begun.
        self.seen = set()

    def begin_anew(self):
        self.token = ""
        self.seen.clear()

    def take(self, message):
        change = message.WhichOneof("change")
        if change == "user":
            user = message.user
            self.users[user.id] = user
            self.seen.add(user.id)
            print(f"user {user.id} {user.first_name}", flush=True)
        elif change == "user_deleted":
            self.users.pop(message.user_deleted.user_id, None)
            print(f"gone {message.user_deleted.user_id}", flush=True)
        elif change == "snapshot_complete":
            for user_id in self.users.keys() - self.seen:
                del self.users[user_id]
            self.seen.clear()
            print(f"complete: {len(self.users)} users", flush=True)
        # A heartbeat, or what a newer service tells, moves the token only.
        self.token = message.resume_token


def follow(authz, copy):
    """Never ends: whatever breaks, it goes on behind the last message."""
    pause = PAUSE_SECONDS
    while True:
        try:
            for message in authz.watch(copy.token):
                copy.take(message)
                pause = PAUSE_SECONDS
        except grpc.RpcError as error:
            reason, _ = details_of(error)
            print(f"broken: {error.code().name} {reason}", flush=True)
            if error.code() == grpc.StatusCode.INVALID_ARGUMENT:
                raise  # a fault of ours that no repetition mends
            if error.code() == grpc.StatusCode.OUT_OF_RANGE:
                copy.begin_anew()
        # By chance, so that not all come back at once.
        time.sleep(pause * random.uniform(0.5, 1.0))
        pause = min(2 * pause, MAX_PAUSE_SECONDS)


if __name__ == "__main__":
    follow(Authz(os.environ.get("AUTHZ_ADDR", "127.0.0.1:50051")), Copy())
