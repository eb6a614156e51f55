//! A token that is cached, with everything that the service can say of itself switched on.

use std::net::SocketAddr;

use opentelemetry_proto::tonic::collector::{
    logs::v1::{
        ExportLogsServiceRequest, ExportLogsServiceResponse,
        logs_service_server::{LogsService, LogsServiceServer},
    },
    trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
};
use tonic::{Request, Response, Status, transport::Server as Tonic};

use crate::{
    Bench, ROUNDS,
    client::{CALLS, Client, VERIFY, about, body_file, framed, h2load},
    process::{Server, free_port},
    table::{Row, median, say},
};

/// What is left of the calls for the same CPU time.
const AT_LEAST: f64 = 0.95;

/// Takes everything and keeps nothing.
struct Collector;

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        _: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Collector {
    async fn export(
        &self,
        _: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        Ok(Response::new(Default::default()))
    }
}

/// A collector of OpenTelemetry at `addr`.
pub(crate) async fn serve(addr: SocketAddr) {
    let served = Tonic::builder()
        .add_service(TraceServiceServer::new(Collector))
        .add_service(LogsServiceServer::new(Collector))
        .serve(addr);
    served.await.expect("it serves");
}

pub(crate) async fn measure(bench: &Bench) -> Vec<Row> {
    say("telemetry");
    let collector_addr = free_port();
    let arguments = ["serve-collector", &collector_addr.to_string()];
    let collector = Server::start_on("1", &bench.this, &arguments, &[], collector_addr);
    collector.accepts().await;
    let folder = tempfile::tempdir().expect("a folder");
    let endpoint = format!("http://{collector_addr}");
    let file = |name: &str| folder.path().join(name).display().to_string();
    let files = ["all.jsonl", "sampled.jsonl"].map(file);
    let traces = |part| {
        [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", part),
            // Of the default, five seconds, most would be sent while another service is measured.
            ("OTEL_BSP_SCHEDULE_DELAY", "100"),
        ]
    };
    let all = [("CLERK_AUTHZ_DECISION_LOG", &*files[0])];
    let sampled = [
        ("CLERK_AUTHZ_DECISION_LOG", &*files[1]),
        ("CLERK_AUTHZ_DECISION_LOG_SAMPLE", "0.1"),
    ];
    let services = [
        bench.serve_apart(&[]),
        bench.serve_apart(&[&traces("0.001")[..], &all].concat()),
        bench.serve_apart(&[&traces("0.001")[..], &sampled].concat()),
        bench.serve_apart(&traces("0.01")),
    ];
    for service in &services {
        service.accepts().await;
    }

    let question = framed(&about(&bench.mint(|_| {})));
    for service in &services {
        let client = Client::connect(service.addr()).await;
        assert_eq!(client.call(VERIFY, question.clone()).await, "0", "accepted");
    }
    let body = body_file(&question);
    let mut cpu: [Vec<f64>; 4] = Default::default();
    for _ in 0..ROUNDS {
        for (of, service) in cpu.iter_mut().zip(&services) {
            // Of all its threads: what is written, and sent meanwhile, is counted, too.
            of.push(service.cpu_while(CALLS, || {
                h2load(service.addr(), VERIFY, body.path());
            }));
        }
    }
    let [off, all, sampled, traced] = cpu.map(median);
    let row = |figure, cpu: f64, is_bound: bool| Row {
        figure,
        measured: format!("{:.2}× ({cpu:.1} µs; off {off:.1} µs)", off / cpu),
        target: match is_bound {
            true => format!("≥ {AT_LEAST}×"),
            false => "stated".into(),
        },
        reached: !is_bound || off / cpu >= AT_LEAST,
    };
    vec![
        row(
            "`VerifySession`, cached, with all telemetry (a file gets a record of each decision, a collector \
             the log and one trace of a thousand): calls per CPU time against off",
            all,
            true,
        ),
        row(
            "likewise, of what is allowed one record in ten",
            sampled,
            false,
        ),
        row("one trace of a hundred alone", traced, false),
    ]
}
