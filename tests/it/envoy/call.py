"""Calls a method through Envoy, with an empty message, and prints the status' name, the reason in
`grpc-status-details-bin` and the message. A method `Watch` answers a stream.

    call.py ADDR METHOD AUTHORIZATION
"""

import re
import sys

import grpc

addr, method, authorization = sys.argv[1:]
metadata = [("authorization", authorization)] if authorization else []
with grpc.insecure_channel(addr) as channel:
    try:
        if method.endswith("/Watch"):
            next(channel.unary_stream(method)(b"", metadata=metadata, timeout=10))
        else:
            channel.unary_unary(method)(b"", metadata=metadata, timeout=10)
        print("OK - -")
    except grpc.RpcError as error:
        details = dict(error.trailing_metadata() or []).get("grpc-status-details-bin", b"")
        # In google.rpc.ErrorInfo: the reason behind its length, then the domain.
        reason = re.search(rb"\n.([A-Z_]+)\x12\x0bclerk-authz", details, re.DOTALL)
        print(error.code().name, reason[1].decode() if reason else "-", error.details() or "-")
