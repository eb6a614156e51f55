"""A client that balances over replicas and calls again what one of them could not answer.

    .venv/bin/python scripts/balanced.py SECONDS ADDR,ADDR… TOKEN

Prints how many calls were answered, and how many failed; exits 1 where one did. What makes the
difference are the two lines of the service config: `round_robin`, since else one connection takes all
calls for as long as it stands, and `retryPolicy`, for calls that were on their way to a replica that
ended. A verification changes nothing, so it may be asked twice (but for `single_use`).
"""

import json
import sys
import threading
import time

import grpc

from running import ROOT

sys.path.insert(0, str(ROOT / "proto"))
messages, services = grpc.protos_and_services("clerkauthz/v1/authz_service.proto")

SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [{
        "name": [{"service": "clerkauthz.v1.AuthzService"}],
        "timeout": "5s",
        "retryPolicy": {
            "maxAttempts": 5, "initialBackoff": "0.05s", "maxBackoff": "1s", "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE"]},
    }],
}
OPTIONS = [
    ("grpc.service_config", json.dumps(SERVICE_CONFIG)), ("grpc.enable_retries", 1),
    # Of several addresses none is a host's name, which every call has to carry.
    ("grpc.default_authority", "clerk-authz"),
    # A replica that is back is found within a second.
    ("grpc.max_reconnect_backoff_ms", 1000),
]
CALLERS, PAUSE_SECONDS = 8, 0.01


def main():
    seconds, addresses, token = float(sys.argv[1]), sys.argv[2], sys.argv[3]
    stub = services.AuthzServiceStub(grpc.insecure_channel(f"ipv4:{addresses}", OPTIONS))
    end, lock, answered, failures = time.monotonic() + seconds, threading.Lock(), [0], []

    def call():
        while time.monotonic() < end:
            try:
                stub.VerifySession(messages.VerifySessionRequest(token=token))
                with lock:
                    answered[0] += 1
            except grpc.RpcError as error:
                with lock:
                    failures.append(f"{error.code().name}: {error.details()}")
            time.sleep(PAUSE_SECONDS)

    callers = [threading.Thread(target=call) for _ in range(CALLERS)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    print(f"{answered[0]} calls answered, {len(failures)} failed", *failures[:3], sep="\n")
    return 1 if failures or not answered[0] else 0


sys.exit(main())
