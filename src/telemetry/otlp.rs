//! Spans and log lines to a collector of OpenTelemetry, over gRPC.
//!
//! They wait in queues, bounded, for threads of the SDK's own; a collector that is down costs what is
//! in them and nothing else. What becomes of them is counted here, and said once.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use opentelemetry::{Context, InstrumentationScope, Key, global, logs::Severity};
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_otlp::{
    WithExportConfig, WithTonicConfig,
    tonic_types::{
        metadata::MetadataMap,
        transport::{Certificate, ClientTlsConfig},
    },
};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    logs::{
        BatchLogProcessor, LogBatch, LogExporter, LogProcessor, SdkLogRecord, SdkLogger,
        SdkLoggerProvider,
    },
    propagation::TraceContextPropagator,
    trace::{
        BatchSpanProcessor, Sampler as SdkSampler, SdkTracerProvider, Span, SpanData, SpanExporter,
        SpanProcessor,
    },
};
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;
use tracing::{info, warn};

use crate::{
    closed_list::closed_list,
    trace::{self, Sampler},
};

/// How long what waits may hold up the end.
const END_WITHIN: Duration = Duration::from_secs(2);

/// How long the collector has for a handshake of TLS. The time for an export begins behind it: one that is
/// never answered would end no export, and nobody would hear of it.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);

/// Of this process, once it sends anything.
static STATS: OnceLock<Arc<Stats>> = OnceLock::new();

/// Where to, and what.
#[derive(Clone, Debug)]
pub struct Options {
    /// The collector, `http://` or `https://`.
    pub endpoint: String,
    /// Whom to trust beside those whom the machine trusts, as PEM.
    pub certificate: Option<PathBuf>,
    /// What the collector is shown with each request, by name: a credential.
    pub headers: BTreeMap<String, SecretString>,
    /// As which this service shows itself; `None` where the resource's attributes say it.
    pub service_name: Option<String>,
    /// Which questions are followed.
    pub sampler: Sampler,
}

/// Nothing can be sent.
#[derive(Debug, Error)]
pub enum OtlpError {
    /// The file of certificates.
    #[error("OTEL_EXPORTER_OTLP_CERTIFICATE is {}; it cannot be read: {cause}", .file.display())]
    Certificate {
        /// The setting's value.
        file: PathBuf,
        /// Why not.
        cause: std::io::Error,
    },
    /// The address or another of the standard's variables.
    #[error("OTEL_EXPORTER_OTLP_ENDPOINT or another OTEL_EXPORTER_OTLP_* cannot be used: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// The headers. What they hold is not said.
    #[error("OTEL_EXPORTER_OTLP_HEADERS cannot be sent")]
    Headers,
    /// Somebody else follows questions in this process.
    #[error("traces are set up already")]
    AlreadySetUp,
}

closed_list! {
    /// What is sent: spans, or log lines.
    Signal {
        /// Spans.
        Traces = "traces",
        /// Log lines.
        Logs = "logs",
    }
}

#[derive(Debug, Default)]
struct Stats([Counts; Signal::ALL.len()]);

/// Of one signal.
#[derive(Debug, Default)]
struct Counts {
    queued: AtomicU64,
    exported: AtomicU64,
    failed: AtomicU64,
    is_failing: AtomicBool,
}

/// What became of spans or lines since the start: what was given to the queue, taken by the collector,
/// and not taken by it. What is none of the last two waits or was dropped.
pub fn stats(signal: Signal) -> Option<[(&'static str, u64); 3]> {
    let counts = &STATS.get()?.0[signal as usize];
    Some([
        ("queued", counts.queued.load(Relaxed)),
        ("exported", counts.exported.load(Relaxed)),
        ("failed", counts.failed.load(Relaxed)),
    ])
}

/// Sends until it is dropped.
#[derive(Debug)]
pub struct Otlp {
    traces: SdkTracerProvider,
    logs: SdkLoggerProvider,
}

impl Otlp {
    /// Sets up spans for the process. Needs a runtime, over which is sent.
    pub fn start(options: &Options) -> Result<Self, OtlpError> {
        let stats: Arc<Stats> = Arc::default();
        let tls = tls(options)?;
        let headers = headers(options)?;
        let spans = opentelemetry_otlp::SpanExporter::builder()
            .with_tonic()
            .with_endpoint(&options.endpoint)
            .with_tls_config(tls.clone())
            .with_metadata(headers.clone())
            .build()?;
        let lines = opentelemetry_otlp::LogExporter::builder()
            .with_tonic()
            .with_endpoint(&options.endpoint)
            .with_tls_config(tls)
            .with_metadata(headers)
            .build()?;
        let counted = |signal| Counted {
            signal,
            stats: Arc::clone(&stats),
        };
        let spans = BatchSpanProcessor::builder(Exporting(spans, counted(Signal::Traces))).build();
        let lines = BatchLogProcessor::builder(Exporting(lines, counted(Signal::Logs))).build();
        let resource = resource(options);
        let traces = SdkTracerProvider::builder()
            .with_resource(resource.clone())
            // Of what is not followed no span is begun.
            .with_sampler(SdkSampler::AlwaysOn)
            .with_span_processor(Queue(spans, counted(Signal::Traces)))
            .build();
        let logs = SdkLoggerProvider::builder()
            .with_resource(resource)
            .with_log_processor(Queue(lines, counted(Signal::Logs)))
            .build();
        global::set_text_map_propagator(TraceContextPropagator::new());
        global::set_tracer_provider(traces.clone());
        if !trace::start(options.sampler) || STATS.set(stats).is_err() {
            return Err(OtlpError::AlreadySetUp);
        }
        Ok(Self { traces, logs })
    }

    /// Takes log lines; each knows the span in which it was written.
    pub(super) fn bridge(&self) -> OpenTelemetryTracingBridge<SdkLoggerProvider, SdkLogger> {
        OpenTelemetryTracingBridge::new(&self.logs)
    }
}

/// Sends what waits, and ends.
impl Drop for Otlp {
    fn drop(&mut self) {
        // What cannot be sent now is lost, and counted.
        let _ = self.traces.shutdown_with_timeout(END_WITHIN);
        let _ = self.logs.shutdown_with_timeout(END_WITHIN);
    }
}

fn tls(options: &Options) -> Result<ClientTlsConfig, OtlpError> {
    let tls = ClientTlsConfig::new()
        .with_enabled_roots()
        .timeout(HANDSHAKE_WITHIN);
    match &options.certificate {
        None => Ok(tls),
        Some(file) => match std::fs::read(file) {
            Ok(pem) => Ok(tls.ca_certificate(Certificate::from_pem(pem))),
            Err(cause) => Err(OtlpError::Certificate {
                file: file.clone(),
                cause,
            }),
        },
    }
}

/// Of those that the environment gives the SDK sends its own copy in their place.
fn headers(options: &Options) -> Result<MetadataMap, OtlpError> {
    let exposed: HashMap<String, String> = options
        .headers
        .iter()
        .map(|(name, value)| (name.clone(), value.expose_secret().to_owned()))
        .collect();
    let headers = (&exposed).try_into().map_err(|_| OtlpError::Headers)?;
    let mut headers = MetadataMap::from_headers(headers).into_headers();
    for value in headers.values_mut() {
        // Not to be shown, nor kept in HPACK's table.
        value.set_sensitive(true);
    }
    Ok(MetadataMap::from_headers(headers))
}

/// What `OTEL_RESOURCE_ATTRIBUTES` says, with our name where nobody gives one.
fn resource(options: &Options) -> Resource {
    let of_environment = Resource::builder().build();
    let named = of_environment.get(&Key::new("service.name"));
    let is_named = named.is_some_and(|name| !name.as_str().starts_with("unknown_service"));
    let own = Resource::builder().with_attribute(opentelemetry::KeyValue::new(
        "service.version",
        env!("CARGO_PKG_VERSION"),
    ));
    match &options.service_name {
        Some(name) => own.with_service_name(name.clone()).build(),
        None if is_named => own.build(),
        None => own.with_service_name("clerk-authz").build(),
    }
}

#[derive(Debug)]
struct Counted {
    signal: Signal,
    stats: Arc<Stats>,
}

impl Counted {
    fn counts(&self) -> &Counts {
        &self.stats.0[self.signal as usize]
    }

    fn queued(&self) {
        self.counts().queued.fetch_add(1, Relaxed);
    }

    /// Says it once when the collector stops taking, and once when it takes again.
    fn exported(&self, count: usize, result: &OTelSdkResult) {
        let counts = self.counts();
        let (signal, count) = (self.signal.name(), u64::try_from(count).unwrap_or(u64::MAX));
        match result {
            Ok(()) => {
                counts.exported.fetch_add(count, Relaxed);
                if counts.is_failing.swap(false, Relaxed) {
                    info!(signal, "the OpenTelemetry collector takes them again");
                }
            }
            Err(cause) => {
                counts.failed.fetch_add(count, Relaxed);
                if !counts.is_failing.swap(true, Relaxed) {
                    warn!(
                        signal, %cause,
                        "the OpenTelemetry collector does not take them; they are lost until it does. \
                         See OTEL_EXPORTER_OTLP_ENDPOINT"
                    );
                }
            }
        }
    }
}

/// An exporter whose exports are counted.
#[derive(Debug)]
struct Exporting<E>(E, Counted);

impl<E: SpanExporter> SpanExporter for Exporting<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        let result = self.0.export(batch).await;
        self.1.exported(count, &result);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.0.set_resource(resource);
    }
}

impl<E: LogExporter> LogExporter for Exporting<E> {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        let count = batch.iter().count();
        let result = self.0.export(batch).await;
        self.1.exported(count, &result);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn event_enabled(&self, level: Severity, target: &str, name: Option<&str>) -> bool {
        self.0.event_enabled(level, target, name)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.0.set_resource(resource);
    }
}

/// A queue whose entries are counted.
#[derive(Debug)]
struct Queue<P>(P, Counted);

impl<P: SpanProcessor> SpanProcessor for Queue<P> {
    fn on_start(&self, span: &mut Span, cx: &Context) {
        self.0.on_start(span, cx);
    }

    fn on_end(&self, span: SpanData) {
        self.1.queued();
        self.0.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.0.set_resource(resource);
    }
}

impl<P: LogProcessor> LogProcessor for Queue<P> {
    fn emit(&self, record: &mut SdkLogRecord, scope: &InstrumentationScope) {
        self.1.queued();
        self.0.emit(record, scope);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn event_enabled(&self, level: Severity, target: &str, name: Option<&str>) -> bool {
        self.0.event_enabled(level, target, name)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.0.set_resource(resource);
    }
}
