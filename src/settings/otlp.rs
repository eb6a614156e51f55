//! The settings of OpenTelemetry, under the names that its specification gives them.

use std::{collections::BTreeMap, path::PathBuf};

use percent_encoding::percent_decode_str;
use secrecy::SecretString;
use url::Url;

use super::{EnvironmentVariables, Problem, Raw, SettingsArgs};

/// Where traces and logs are sent, and which.
#[derive(Clone, Debug)]
pub struct OtlpSettings {
    /// The collector, without a path.
    pub endpoint: String,
    /// A file of certificates to trust, as PEM.
    pub certificate: Option<PathBuf>,
    /// What it is shown with each request, by name: its credential among them.
    pub headers: BTreeMap<String, SecretString>,
    /// As which the service shows itself; `None` where nobody says it here.
    pub service_name: Option<String>,
    /// Whether a caller that says whether it is followed is heeded.
    pub heeds_parent: bool,
    /// Which part of the others is followed, from 0 to 1.
    pub ratio: f64,
}

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";
const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const SAMPLER_ARG: &str = "OTEL_TRACES_SAMPLER_ARG";
const DISABLED: &str = "OTEL_SDK_DISABLED";

/// `None` without a collector, and where it is switched off.
pub(super) fn read(
    raw: &Raw,
    args: &SettingsArgs,
    environment: &EnvironmentVariables,
    problems: &mut Vec<Problem>,
) -> Option<OtlpSettings> {
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
    // The SDK reads the variable by itself, and would not hear of the flag.
    let is_given = environment.get(HEADERS).is_some_and(|it| !it.is_empty());
    if is_given && args.get(HEADERS).is_some() {
        problems.push(Problem::new(
            HEADERS,
            "is set beside --otel-exporter-otlp-headers-file; set one of them",
        ));
    }
    let headers = headers(&raw.text(HEADERS).unwrap_or_default()).unwrap_or_else(|| {
        // Nothing of it is said: it is a secret.
        problems.push(Problem::new(
            raw.subject(HEADERS),
            "is no list of headers; expected NAME=VALUE between commas, each name once, and in a \
             value %2C for a comma, %25 for a \"%\", such as \"authorization=Bearer%20TOKEN\"",
        ));
        BTreeMap::new()
    });
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
        headers,
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

/// As OpenTelemetry's specification writes them: values in percent-encoding, without properties. `None`
/// where one cannot be sent; the SDK would leave it out and say nothing.
fn headers(text: &str) -> Option<BTreeMap<String, SecretString>> {
    let mut headers = BTreeMap::new();
    for header in text.split_terminator(',') {
        let (name, value) = header.split_once('=')?;
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
        let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let is_encoded = value.split('%').skip(1).all(|behind| {
            let digits = behind.bytes().take(2);
            digits.filter(u8::is_ascii_hexdigit).count() == 2
        });
        let value = percent_decode_str(value).decode_utf8().ok()?;
        // What gRPC takes of names and of values.
        if name.is_empty()
            || !name.bytes().all(is_of_name)
            || !is_encoded
            || value.is_empty()
            || !value.bytes().all(|byte| matches!(byte, b' '..=b'~'))
        {
            return None;
        }
        let value = SecretString::from(value.into_owned());
        if headers.insert(name, value).is_some() {
            return None;
        }
    }
    Some(headers)
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
