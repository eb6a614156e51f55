//! The settings of OpenTelemetry, under the names that its specification gives them.

use std::path::PathBuf;

use url::Url;

use super::{Problem, Raw};

/// Where traces and logs are sent, and which.
#[derive(Clone, Debug, PartialEq)]
pub struct OtlpSettings {
    /// The collector, without a path.
    pub endpoint: String,
    /// A file of certificates to trust, as PEM.
    pub certificate: Option<PathBuf>,
    /// As which the service shows itself; `None` where nobody says it here.
    pub service_name: Option<String>,
    /// Whether a caller that says whether it is followed is heeded.
    pub heeds_parent: bool,
    /// Which part of the others is followed, from 0 to 1.
    pub ratio: f64,
}

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const SAMPLER_ARG: &str = "OTEL_TRACES_SAMPLER_ARG";
const DISABLED: &str = "OTEL_SDK_DISABLED";

/// `None` without a collector, and where it is switched off.
pub(super) fn read(raw: &Raw, problems: &mut Vec<Problem>) -> Option<OtlpSettings> {
    let disabled = raw.text(DISABLED).is_some_and(|text| match &*text {
        "true" => true,
        "false" => false,
        _ => {
            problems.push(raw.wrong(DISABLED, "\"true\" or \"false\""));
            true
        }
    });
    if raw.text(PROTOCOL).is_some_and(|text| text != "grpc") {
        problems.push(raw.wrong(PROTOCOL, "\"grpc\", which collectors take on port 4317"));
    }
    let (heeds_parent, ratio) = sampler(raw, problems);
    let endpoint = raw.text(ENDPOINT).filter(|_| !disabled)?;
    if !is_endpoint(&endpoint) {
        let expected = "http:// or https:// and a host, such as \"http://127.0.0.1:4317\"";
        // It may hold a password.
        problems.push(Problem::new(
            raw.subject(ENDPOINT),
            format!("is not a collector's address; expected {expected}, and no user or path"),
        ));
    }
    Some(OtlpSettings {
        endpoint,
        certificate: raw
            .text("OTEL_EXPORTER_OTLP_CERTIFICATE")
            .map(PathBuf::from),
        service_name: raw.text("OTEL_SERVICE_NAME"),
        heeds_parent,
        ratio,
    })
}

fn sampler(raw: &Raw, problems: &mut Vec<Problem>) -> (bool, f64) {
    let ratio = |problems: &mut Vec<Problem>| match raw.text(SAMPLER_ARG) {
        None => 1.0,
        Some(_) => raw.part(SAMPLER_ARG, problems),
    };
    match raw.text(SAMPLER).as_deref() {
        Some("always_on") => (false, 1.0),
        Some("always_off") => (false, 0.0),
        Some("traceidratio") => (false, ratio(problems)),
        Some("parentbased_always_on") => (true, 1.0),
        Some("parentbased_always_off") => (true, 0.0),
        Some("parentbased_traceidratio") => (true, ratio(problems)),
        _ => {
            let expected = "always_on, always_off, traceidratio, or one of these with \
                            \"parentbased_\" before it";
            problems.push(raw.wrong(SAMPLER, expected));
            (true, 0.0)
        }
    }
}

fn is_endpoint(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.path() == "/"
            && url.query().is_none()
    })
}
