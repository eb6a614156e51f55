"""A receiver of traces for the demo: writes each span that comes, by OTLP over gRPC, as a line to a file."""

import os
from concurrent.futures import ThreadPoolExecutor

# The demo starts programs, none of which goes on with this server; else each start is warned of.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"
import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as messages
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as services


class Logs(logs_service_pb2_grpc.LogsServiceServicer):
    """Takes the log, which comes to the same address, and leaves it: each replica has it in a file."""

    def Export(self, request, context):
        return logs_service_pb2.ExportLogsServiceResponse()


class Receiver(services.TraceServiceServicer):
    def __init__(self, address, file):
        self.file = file
        file.touch()
        # One at a time: lines of two replicas do not mix.
        self.server = grpc.server(ThreadPoolExecutor(1))
        services.add_TraceServiceServicer_to_server(self, self.server)
        logs_service_pb2_grpc.add_LogsServiceServicer_to_server(Logs(), self.server)
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
