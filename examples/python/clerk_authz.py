"""What a Python service needs to ask clerk-authz: copy this file and the generated stubs.

Stubs:  python -m grpc_tools.protoc -I proto --python_out=gen --grpc_python_out=gen \
            proto/clerkauthz/v1/*.proto proto/google/rpc/*.proto
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "gen"))

try:
    import grpc
    from clerkauthz.v1 import authz_service_pb2 as pb
    from clerkauthz.v1 import authz_service_pb2_grpc as stubs
    from clerkauthz.v1 import reason_pb2
    from google.rpc import error_details_pb2, status_pb2
except ImportError as error:
    hint = "make the stubs as said above; in this repository `make setup`, then .venv/bin/python"
    raise ImportError(f"{error}: {hint}") from error

# A caller that waits longer than this has better things to do than to wait.
DEADLINE_SECONDS = 0.5

# Retries are the channel's business: only for "cannot tell", never for a denial.
SERVICE_CONFIG = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{"service": "clerkauthz.v1.AuthzService"}],
                "retryPolicy": {
                    "maxAttempts": 3,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "0.2s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ],
        "loadBalancingConfig": [{"round_robin": {}}],
    }
)


@dataclass
class Denied(Exception):
    """The token is not good; `reason` says why."""

    reason: str


@dataclass
class Forbidden(Exception):
    """The token is good, and its user may not; `decision_id` is found in the service's log."""

    reason: str
    decision_id: str


@dataclass
class CannotTell(Exception):
    """Neither yes nor no: answer 503, and never let the request pass."""

    reason: str
    retry_after_seconds: int


class Authz:
    """One for the whole process: it holds one channel, which reconnects by itself."""

    def __init__(self, address: str):
        self._channel = grpc.insecure_channel(
            address,
            options=[
                ("grpc.service_config", SERVICE_CONFIG),
                ("grpc.keepalive_time_ms", 30_000),
                ("grpc.max_reconnect_backoff_ms", 1_000),
            ],
        )
        self._stub = stubs.AuthzServiceStub(self._channel)

    def verify(self, authorization: list[str], cookie: list[str]) -> pb.VerifySessionResponse:
        """The session, for header values as they were received."""
        http = pb.HttpCredentials(authorization=authorization, cookie=cookie)
        return self.ask(pb.VerifySessionRequest(http=http))

    def require(self, authorization: list[str], cookie: list[str], **asked):
        """Passes only if the caller may: `require(a, c, permission="org:invoices:create")`.

        Takes the fields of CheckOrgPermissionRequest; raises Forbidden where the answer is no.
        """
        http = pb.HttpCredentials(authorization=authorization, cookie=cookie)
        answer = self.call(
            self._stub.CheckOrgPermission, pb.CheckOrgPermissionRequest(http=http, **asked)
        )
        # A "no" about a permission is an answer: forget to look, and everybody is let in.
        if not answer.allowed:
            raise Forbidden(name_of(answer.reason), answer.decision_id)
        return answer

    def ask(self, request: pb.VerifySessionRequest) -> pb.VerifySessionResponse:
        return self.call(self._stub.VerifySession, request)

    def watch(self, resume_token: str):
        """Messages about users, without end and without a deadline; see watch.py."""
        return self._stub.WatchUsers(pb.WatchUsersRequest(resume_token=resume_token))

    def call(self, rpc, request):
        try:
            return rpc(request, timeout=DEADLINE_SECONDS)
        except grpc.RpcError as error:
            reason, retry_after = details_of(error)
            if error.code() == grpc.StatusCode.UNAUTHENTICATED:
                raise Denied(reason) from error
            # Everything else, whatever it is, is not a yes.
            raise CannotTell(reason or error.code().name, retry_after) from error

    def close(self):
        self._channel.close()


def name_of(reason: int) -> str:
    """The bare name; the number where the service is newer than the stubs and has another reason."""
    known = reason_pb2.Reason.DESCRIPTOR.values_by_number.get(reason)
    return known.name.removeprefix("REASON_") if known else str(reason)


def details_of(error: grpc.RpcError) -> tuple[str, int]:
    """The reason of ErrorInfo and the delay of RetryInfo, in whole seconds."""
    reason, retry_after = "", 1
    for key, value in error.trailing_metadata() or ():
        if key != "grpc-status-details-bin":
            continue
        for detail in status_pb2.Status.FromString(value).details:
            info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
            if detail.Unpack(info):
                reason = info.reason
            elif detail.Unpack(retry):
                retry_after = max(1, retry.retry_delay.ToTimedelta().seconds)
    return reason, retry_after
