"""A receiver of traces for the demo: writes each span that comes, by OTLP over gRPC, as a line to a file."""

import os
from concurrent.futures import ThreadPoolExecutor

# The demo starts programs, none of which goes on with this server; else each start is warned of.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"
import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as messages
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as services


class Receiver(services.TraceServiceServicer):
    def __init__(self, address, file):
        self.file = file
        file.touch()
        # One at a time: lines of two replicas do not mix.
        self.server = grpc.server(ThreadPoolExecutor(1))
        services.add_TraceServiceServicer_to_server(self, self.server)
        if self.server.add_insecure_port(address) == 0:
            raise SystemExit(f"{address} is taken")
        self.server.start()

    def Export(self, request, context):
        with self.file.open("a") as out:
            for resource in request.resource_spans:
                said = {value.key: value.value.string_value for value in resource.resource.attributes}
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        print(span.trace_id.hex(), said.get("service.name"), span.name,
                              f"{(span.end_time_unix_nano - span.start_time_unix_nano) / 1e6:.2f} ms",
                              f"span={span.span_id.hex()} parent={span.parent_span_id.hex()}", file=out)
        return messages.ExportTraceServiceResponse()

    def end(self):
        self.server.stop(0).wait()
