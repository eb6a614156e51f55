"""Calls a method of grpc.health.v1.Health through Envoy and prints the status' name, the reason in
`grpc-status-details-bin` and the message.

    call.py ADDR METHOD AUTHORIZATION
"""

import re
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

addr, method, authorization = sys.argv[1:]
metadata = [("authorization", authorization)] if authorization else []
with grpc.insecure_channel(addr) as channel:
    stub = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest(service="")
    try:
        if method == "Check":
            stub.Check(request, metadata=metadata, timeout=10)
        else:
            next(stub.Watch(request, metadata=metadata, timeout=10))
        print("OK - -")
    except grpc.RpcError as error:
        details = dict(error.trailing_metadata() or []).get("grpc-status-details-bin", b"")
        # In google.rpc.ErrorInfo: the reason behind its length, then the domain.
        reason = re.search(rb"\n.([A-Z_]+)\x12\x0bclerk-authz", details, re.DOTALL)
        print(error.code().name, reason[1].decode() if reason else "-", error.details() or "-")
