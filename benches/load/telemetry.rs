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
    table::{Row, median, percentile, say},
};

/// What is left of the calls for the same CPU time.
const AT_LEAST: f64 = 0.95;

/// Two processes of one program differ by some hundredths, by where their memory lies: so many are asked.
const STARTS: usize = 4;

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
    let set_ups = [
        vec![],
        [&traces("0.001")[..], &all].concat(),
        [&traces("0.001")[..], &sampled].concat(),
        traces("0.01").to_vec(),
    ];
    let question = framed(&about(&bench.mint(|_| {})));
    let body = body_file(&question);
    let mut rounds = Vec::new();
    for _ in 0..STARTS {
        let services: Vec<Server> = set_ups.iter().map(|it| bench.serve_apart(it)).collect();
        for service in &services {
            service.accepts().await;
            let client = Client::connect(service.addr()).await;
            assert_eq!(client.call(VERIFY, question.clone()).await, "0", "accepted");
        }
        for _ in 0..ROUNDS {
            let mut order = [0, 1, 2, 3];
            fastrand::shuffle(&mut order);
            let mut cpu = [0.0; 4];
            for at in order {
                // Of all its threads: what is written, and sent meanwhile, is counted, too.
                cpu[at] = services[at].cpu_while(CALLS, || {
                    h2load(services[at].addr(), VERIFY, body.path());
                });
            }
            rounds.push(cpu);
        }
    }
    let row = |figure, at: usize, is_bound: bool| {
        // By what else the machine does a round is slower than another: each is compared with itself.
        let mut ratios: Vec<f64> = rounds.iter().map(|cpu| cpu[0] / cpu[at]).collect();
        let [low, ratio, high] = [0.25, 0.5, 0.75].map(|share| percentile(&mut ratios, share));
        let [off, on] = [0, at].map(|at| median(rounds.iter().map(|cpu| cpu[at]).collect()));
        Row {
            figure,
            measured: format!(
                "{ratio:.2}× (half of {} rounds {low:.2}× to {high:.2}×; {on:.1} µs; off {off:.1} µs)",
                rounds.len()
            ),
            target: match is_bound {
                true => format!("≥ {AT_LEAST}×"),
                false => "stated".into(),
            },
            reached: !is_bound || ratio >= AT_LEAST,
        }
    };
    vec![
        row(
            "`VerifySession`, cached, with all telemetry (a file gets a record of each decision, a collector \
             the log and one trace of a thousand): calls per CPU time against off",
            1,
            true,
        ),
        row("likewise, of what is allowed one record in ten", 2, false),
        row("one trace of a hundred alone", 3, false),
    ]
}
