"""A client that balances over replicas and calls again what one of them could not answer.

    .venv/bin/python scripts/balanced.py [--ca FILE [--cert FILE --key FILE]] SECONDS ADDR,ADDR… TOKEN

With `--ca` it speaks TLS and trusts these authorities, and with `--cert` it shows this certificate.

Prints how many calls were answered, and how many failed; exits 1 where one did. What makes the
difference are the two lines of the service config: `round_robin`, since else one connection takes all
calls for as long as it stands, and `retryPolicy`, for calls that were on their way to a replica that
ended. A verification changes nothing, so it may be asked twice (but for `single_use`).
"""

import argparse
import json
import sys
import threading
import time
from pathlib import Path

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
    # Of several addresses none is a host's name, which every call has to carry, and which stands in the
    # service's certificate.
    ("grpc.default_authority", "clerk-authz"),
    # A replica that is back is found within a second.
    ("grpc.max_reconnect_backoff_ms", 1000),
]
CALLERS, PAUSE_SECONDS = 8, 0.01


def channel(addresses, ca, cert, key):
    target = f"ipv4:{addresses}"
    if not ca:
        return grpc.insecure_channel(target, OPTIONS)
    credentials = grpc.ssl_channel_credentials(
        ca.read_bytes(), key.read_bytes() if key else None, cert.read_bytes() if cert else None)
    return grpc.secure_channel(target, credentials, OPTIONS)


def main():
    parser = argparse.ArgumentParser()
    for name in ("--ca", "--cert", "--key"):
        parser.add_argument(name, type=Path)
    parser.add_argument("seconds", type=float)
    parser.add_argument("addresses")
    parser.add_argument("token")
    arguments = parser.parse_args()
    if bool(arguments.cert) != bool(arguments.key) or arguments.cert and not arguments.ca:
        parser.error("--cert and --key go together, and with --ca")
    seconds, token = arguments.seconds, arguments.token
    stub = services.AuthzServiceStub(
        channel(arguments.addresses, arguments.ca, arguments.cert, arguments.key))
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
