//! A collector of OpenTelemetry that keeps what it gets.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::{
            ExportLogsServiceRequest, ExportLogsServiceResponse,
            logs_service_server::{LogsService, LogsServiceServer},
        },
        trace::v1::{
            ExportTraceServiceRequest, ExportTraceServiceResponse,
            trace_service_server::{TraceService, TraceServiceServer},
        },
    },
    common::v1::{KeyValue, any_value::Value},
    logs::v1::LogRecord,
    trace::v1::Span,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

use crate::support::{loopback, secrets};

/// What it got so far.
#[derive(Clone, Default)]
pub struct Collector {
    got: Arc<Mutex<Got>>,
}

#[derive(Default)]
struct Got {
    spans: Vec<Span>,
    lines: Vec<LogRecord>,
    resource: Vec<KeyValue>,
    /// `authorization` of requests: of spans, of log lines.
    credentials: [Option<String>; 2],
}

/// The text or number of an attribute.
pub fn attribute(attributes: &[KeyValue], name: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        other => Some(format!("{other:?}")),
    }
}

fn credential<T>(request: &Request<T>) -> Option<String> {
    let value = request.metadata().get("authorization")?;
    Some(value.to_str().expect("text").to_owned())
}

impl Collector {
    pub async fn start() -> (Self, SocketAddr) {
        Self::start_at(loopback()).await
    }

    pub async fn start_at(addr: SocketAddr) -> (Self, SocketAddr) {
        let collector = Self::default();
        let listener = TcpListener::bind(addr).await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let server = Server::builder()
            .add_service(TraceServiceServer::new(collector.clone()))
            .add_service(LogsServiceServer::new(collector.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        (collector, addr)
    }

    pub fn spans(&self) -> Vec<Span> {
        self.got.lock().expect("not poisoned").spans.clone()
    }

    pub fn lines(&self) -> Vec<LogRecord> {
        self.got.lock().expect("not poisoned").lines.clone()
    }

    /// What it was last shown with spans, and with log lines.
    pub fn credentials(&self) -> [Option<String>; 2] {
        self.got.lock().expect("not poisoned").credentials.clone()
    }

    pub fn resource(&self) -> Vec<KeyValue> {
        self.got.lock().expect("not poisoned").resource.clone()
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut got = self.got.lock().expect("not poisoned");
        got.credentials[0] = credential(&request);
        let sent = request.into_inner();
        secrets::none_in("spans", &format!("{sent:?}"));
        for of_resource in sent.resource_spans {
            got.resource = of_resource.resource.unwrap_or_default().attributes;
            for of_scope in of_resource.scope_spans {
                got.spans.extend(of_scope.spans);
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Collector {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let mut got = self.got.lock().expect("not poisoned");
        got.credentials[1] = credential(&request);
        let sent = request.into_inner();
        secrets::none_in("log lines", &format!("{sent:?}"));
        for of_resource in sent.resource_logs {
            for of_scope in of_resource.scope_logs {
                got.lines.extend(of_scope.log_records);
            }
        }
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}
