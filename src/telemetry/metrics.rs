//! The catalogue of metrics, and their text in the OpenMetrics format.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

use crate::histogram::{BOUNDS, Exemplar, Recorded};

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; its name gets `_total` in the text.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Durations by class, in seconds.
    Histogram,
}

/// A metric: its name, what it means, how it behaves, its labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Without `_total`.
    pub name: &'static str,
    /// A sentence.
    pub help: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// The names of its labels, in order.
    pub labels: &'static [&'static str],
}

macro_rules! catalogue {
    ($($constant:ident = $kind:ident $name:literal [$($label:literal),*], $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $constant: Metric = Metric {
                name: $name,
                help: $help,
                kind: Kind::$kind,
                labels: &[$($label),*],
            };
        )*

        /// All metrics.
        pub const CATALOGUE: &[Metric] = &[$($constant,)*];
    };
}

catalogue! {
    BUILD_INFO = Gauge "clerk_authz_build_info" ["version", "revision"], "Always 1; the version and the commit that it was built of are in the labels";
    ANSWERS = Counter "clerk_authz_answers" ["rpc", "outcome"], "Questions answered, by how they ended: ACCEPTED, a reason, or INVALID_ARGUMENT";
    DECISION_LOG_LINES = Counter "clerk_authz_decision_log_lines" ["outcome"], "Records of the decision log, by what became of them: written, dropped (too many waited), failed (the disk did not take them); absent while it is off";
    OTLP_ITEMS = Counter "clerk_authz_otlp_items" ["signal", "outcome"], "Spans and log lines for the OpenTelemetry collector: queued, exported (it took them), failed (it did not); absent without a collector";
    GRPC_CALLS = Counter "clerk_authz_grpc_calls" ["rpc", "code"], "gRPC calls, by status code; a stream counts when it begins";
    GRPC_CALL_DURATION = Histogram "clerk_authz_grpc_call_duration_seconds" ["rpc"], "How long gRPC calls took until they were answered";
    HTTP_REQUESTS = Counter "clerk_authz_http_requests" ["route", "status"], "HTTP requests, by status; 499 is one whose client went away";
    HTTP_REQUEST_DURATION = Histogram "clerk_authz_http_request_duration_seconds" ["route"], "How long HTTP requests took until they were answered";
    CALLS_IN_FLIGHT = Gauge "clerk_authz_calls_in_flight" [], "gRPC calls that are worked on now";
    CALLS_SHED = Counter "clerk_authz_calls_shed" [], "gRPC calls that were turned away for load";
    CALLER_CALLS = Counter "clerk_authz_caller_calls" ["caller", "outcome"], "gRPC calls by the rule's name of their caller, by what became of them at the rules: admitted, denied, shed (over a limit of the caller); absent without rules for callers";
    CALLER_RELOADS = Counter "clerk_authz_caller_reloads" ["outcome"], "Changes of the callers' file that were applied, or refused because of what is wrong in it; absent without one";
    INSTANCE_RELOADS = Counter "clerk_authz_instance_reloads" ["outcome"], "Changes of the instances' file, or of a secret that it names, that were applied, or refused because of what is wrong in it; absent without one";
    SIGNATURES = Counter "clerk_authz_signatures" [], "Signatures that were verified, rightly or not: what the token cache did not save";
    FEATURES_OUT_OF_ORDER = Counter "clerk_authz_features_out_of_order" [], "Tokens with a user feature before an organization feature, whose permissions Clerk's documentation and SDK read differently";
    TOKEN_CACHE_HITS = Counter "clerk_authz_token_cache_hits" [], "Look-ups in the token cache that found an entry";
    TOKEN_CACHE_MISSES = Counter "clerk_authz_token_cache_misses" [], "Look-ups in the token cache that found none";
    TOKEN_CACHE_EVICTIONS = Counter "clerk_authz_token_cache_evictions" [], "Entries removed from the token cache to make room";
    TOKEN_CACHE_ENTRIES = Gauge "clerk_authz_token_cache_entries" [], "Entries in the token cache";
    TOKEN_CACHE_BYTES = Gauge "clerk_authz_token_cache_bytes" [], "Size of the token cache in bytes";
    OPAQUE_TOKEN_CACHE_HITS = Counter "clerk_authz_opaque_token_cache_hits" [], "Look-ups of an opaque machine token that what is remembered answered";
    OPAQUE_TOKEN_CACHE_MISSES = Counter "clerk_authz_opaque_token_cache_misses" [], "Look-ups of an opaque machine token about which Clerk had to be asked";
    OPAQUE_TOKEN_CACHE_EVICTIONS = Counter "clerk_authz_opaque_token_cache_evictions" [], "Opaque machine tokens forgotten to make room";
    OPAQUE_TOKEN_CACHE_ENTRIES = Gauge "clerk_authz_opaque_token_cache_entries" [], "Opaque machine tokens remembered, those that are not good included";
    OPAQUE_TOKEN_CACHE_BYTES = Gauge "clerk_authz_opaque_token_cache_bytes" [], "Size of the memory of opaque machine tokens in bytes";
    MEMBERSHIP_CACHE_HITS = Counter "clerk_authz_membership_cache_hits" [], "Look-ups of a membership that what is remembered answered";
    MEMBERSHIP_CACHE_MISSES = Counter "clerk_authz_membership_cache_misses" [], "Look-ups of a membership for which nothing fresh enough was remembered";
    MEMBERSHIP_CACHE_EVICTIONS = Counter "clerk_authz_membership_cache_evictions" [], "Memberships forgotten to make room";
    MEMBERSHIP_CACHE_ENTRIES = Gauge "clerk_authz_membership_cache_entries" [], "Memberships remembered, those of non-members included";
    MEMBERSHIP_CACHE_BYTES = Gauge "clerk_authz_membership_cache_bytes" [], "Size of the memory of memberships in bytes";
    KEYS = Gauge "clerk_authz_keys" ["instance"], "Usable signing keys";
    KEYS_USABLE = Gauge "clerk_authz_keys_usable" ["instance"], "1 when tokens of the instance can be verified, else 0";
    KEYS_AGE = Gauge "clerk_authz_keys_age_seconds" ["instance"], "Seconds since the key set was last fetched with success; absent while there is none";
    KEYS_LAST_SUCCESS = Gauge "clerk_authz_keys_last_success_timestamp_seconds" ["instance"], "Unix time of the last successful fetch of the key set; absent while there is none";
    KEYS_FETCHES = Counter "clerk_authz_keys_fetches" ["instance", "outcome"], "Fetches of the key set, by outcome";
    KEYS_FETCHES_REFUSED = Counter "clerk_authz_keys_fetches_refused" ["instance"], "Look-ups of an unknown kid that neither caused a fetch nor waited for one: because of the cooldown, or of the number of those who wait";
    KEYS_IGNORED = Gauge "clerk_authz_keys_ignored" ["instance", "cause"], "Keys of the current document that are not used, by cause";
    KEYS_SNAPSHOT_FAILURES = Counter "clerk_authz_keys_snapshot_failures" ["instance"], "Snapshots of the key set that could not be written";
    CLERK_REQUESTS = Counter "clerk_authz_clerk_requests" ["instance", "endpoint", "outcome"], "Requests to Clerk's Backend API, by how they ended";
    CLERK_REQUEST_DURATION = Histogram "clerk_authz_clerk_request_duration_seconds" ["instance", "endpoint"], "How long requests to Clerk's Backend API took";
    CLERK_QUESTIONS_JOINED = Counter "clerk_authz_clerk_questions_joined" ["instance"], "Questions to Clerk's Backend API that an equal one under way answered";
    CLERK_QUESTIONS_HELD_BACK = Counter "clerk_authz_clerk_questions_held_back" ["instance"], "Questions to Clerk's Backend API that were not sent: over the budget, in a pause that Clerk asked for, or while it fails or refuses the secret key";
    CLERK_BUDGET_LEFT = Gauge "clerk_authz_clerk_budget_left" ["instance"], "Requests to Clerk's Backend API that the budget allows at this moment";
    CLERK_BREAKER_OPEN = Gauge "clerk_authz_clerk_breaker_open" ["instance"], "1 while Clerk's Backend API fails so often that it is left alone, else 0";
    WEBHOOK_DELIVERIES = Counter "clerk_authz_webhook_deliveries" ["instance", "outcome"], "Deliveries of webhooks, by how they ended";
    INBOX_MESSAGES = Gauge "clerk_authz_inbox_messages" ["instance", "state"], "Webhook messages in the database, by state; counted twice a minute";
    INBOX_OLDEST = Gauge "clerk_authz_inbox_oldest_seconds" ["instance"], "Age of the oldest webhook message that waits or is worked on; 0 when there is none";
    INBOX_APPLIED = Counter "clerk_authz_inbox_applied" ["instance", "class"], "Webhook messages that this replica applied, by what they are about";
    INBOX_IGNORED = Counter "clerk_authz_inbox_ignored" ["instance", "class"], "Webhook messages that this replica took and that are about nothing that is mirrored";
    INBOX_FAILURES = Counter "clerk_authz_inbox_failures" ["instance"], "Webhook messages that were not applied and are tried again";
    INBOX_POISONED = Counter "clerk_authz_inbox_poisoned" ["instance"], "Webhook messages that this replica put on the poison list";
    RECONCILE_RUNS = Counter "clerk_authz_reconcile_runs" ["outcome"], "Reconciliations that this replica made by itself, by how they ended: in_step, drift, failed";
    RECONCILE_DRIFT = Gauge "clerk_authz_reconcile_drift" ["instance", "kind", "class"], "What the last reconciliation that came to its end found to be missing, stale or a ghost, by whichever replica or command; absent before the first";
    RECONCILE_LAST_RUN = Gauge "clerk_authz_reconcile_last_run_timestamp_seconds" ["instance"], "Unix time at which the last reconciliation ended, in whatever way; absent before the first";
    RECONCILE_FAILED = Gauge "clerk_authz_reconcile_failed" ["instance"], "1 when the last reconciliation could not finish, else 0; absent before the first";
    LOOK_UPS = Counter "clerk_authz_look_ups" ["outcome"], "Questions to Clerk about what is in doubt in the mirror, by what became of them: settled, open, failed";
    WATCHES = Gauge "clerk_authz_watches" ["instance"], "Watches of users that are open at this replica";
    WATCH_MESSAGES = Counter "clerk_authz_watch_messages" ["instance", "change"], "Messages of watches, by what they tell";
    WATCHES_ENDED = Counter "clerk_authz_watches_ended" ["instance", "cause"], "Watches that ended, by why";
    POLICY_ROUTES = Gauge "clerk_authz_policy_routes" ["kind", "version"], "Routes of the policy that is in force, and of the one that is tried beside it";
    POLICY_RELOADS = Counter "clerk_authz_policy_reloads" ["kind", "outcome"], "Changes of a policy's file that were applied, or refused because of what is wrong in it";
    POLICY_SHADOW = Counter "clerk_authz_policy_shadow" ["outcome"], "Requests that were tried by the shadow policy too, by whether it decides the same";
    UPSTREAM_ASSERTIONS = Counter "clerk_authz_upstream_assertions" ["outcome"], "Assertions for upstreams, by what became of them: signed, cached (one from before was good), failed (none was made); absent without a policy and a database";
    UPSTREAM_ASSERTION_CACHE_ENTRIES = Gauge "clerk_authz_upstream_assertion_cache_entries" [], "Assertions for upstreams in the cache";
    UPSTREAM_ASSERTION_CACHE_BYTES = Gauge "clerk_authz_upstream_assertion_cache_bytes" [], "Size of the cache of assertions for upstreams in bytes";
    UPSTREAM_ASSERTION_CACHE_EVICTIONS = Counter "clerk_authz_upstream_assertion_cache_evictions" [], "Assertions for upstreams removed from the cache to make room";
    UPSTREAM_KEYS = Gauge "clerk_authz_upstream_keys" [], "Keys of upstream assertions that are published now: one, and two around a rotation";
    UPSTREAM_KEY_AGE = Gauge "clerk_authz_upstream_key_age_seconds" [], "Seconds since the present key signs upstream assertions; absent while there is none";
    UPSTREAM_KEY_READINGS = Counter "clerk_authz_upstream_key_readings" ["outcome"], "Readings of the kept keys of upstream assertions: read, failed (the known ones stay)";
    HANDSHAKES = Counter "clerk_authz_handshakes" ["outcome"], "Browsers that were sent to Clerk for a session, or came back from there, by what came of it; absent while the handshake is off";
    TLS_RELOADS = Counter "clerk_authz_tls_reloads" ["outcome"], "Changes of the files of TLS that were applied, or refused because of what is wrong in them; absent without TLS";
    TLS_CERTIFICATE_EXPIRES = Gauge "clerk_authz_tls_certificate_expires_timestamp_seconds" [], "Unix time at which the certificate in use ends, or one that it is sent with; absent without TLS";
    REVOCATIONS = Gauge "clerk_authz_revocations" ["instance", "subject"], "What is remembered that tokens do not say: sessions that ended, users who are or were out, organizations that were deleted, memberships that changed";
    REVOCATION_LAG = Gauge "clerk_authz_revocation_lag_seconds" ["instance"], "For how long it has not been certain that this replica has heard of every revocation; below a second when all is well";
    FEED_LISTENING = Gauge "clerk_authz_feed_listening" [], "1 while changes are heard as they come, 0 while they are only looked for; absent where there is no database";
    DATABASE_CONNECTIONS = Gauge "clerk_authz_database_connections" ["pool", "state"], "Open connections to the database, used or idle; absent where there is none";
    DATABASE_CONNECTIONS_MAX = Gauge "clerk_authz_database_connections_max" ["pool"], "The most connections to the database that a pool may open";
    DATABASE_WAIT = Histogram "clerk_authz_database_wait_seconds" ["for"], "How long it took to get a connection for reading, or the right to write";
    DATABASE_UP = Gauge "clerk_authz_database_up" [], "1 when the database answers, else 0; absent where there is none";
}

/// Writes the values of metrics; every value of one metric at once.
pub struct Writer<'a> {
    encoder: DescriptorEncoder<'a>,
    exemplars: Exemplars,
}

/// The exemplars of the text that was written last: the beginning of their line, up to the count, and
/// what stands behind it. prometheus-client writes only those of durations that it counts
/// itself, under a lock for each.
#[derive(Clone, Debug, Default)]
struct Exemplars(Arc<Mutex<Vec<(String, String)>>>);

impl Exemplars {
    fn begin(&self) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    fn add(&self, metric: Metric, labels: &[(String, String)], exemplar: &Exemplar) {
        let labels: String = labels
            .iter()
            .map(|(name, value)| format!(",{name}=\"{value}\""))
            .collect();
        let bound = match BOUNDS.get(exemplar.class) {
            Some(bound) => bound.as_secs_f64().to_string(),
            None => "+Inf".to_owned(),
        };
        let line = format!("{}_bucket{{le=\"{bound}\"{labels}}} ", metric.name);
        let (id, took) = (&exemplar.trace_id, exemplar.took.as_secs_f64());
        let shown = format!(" # {{trace_id=\"{id}\"}} {took}");
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push((line, shown));
    }

    /// The text with them.
    fn put_into(&self, text: String) -> String {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.is_empty() {
            return text;
        }
        let lines = text.lines().map(|line| {
            let shown = all.iter().find(|(begin, _)| line.starts_with(begin));
            format!("{line}{}\n", shown.map_or("", |(_, shown)| shown))
        });
        lines.collect()
    }
}

impl Writer<'_> {
    /// The values of `metric`, each with its labels' values in the catalogue's order.
    pub fn write<V: AsRef<[String]>>(
        &mut self,
        metric: Metric,
        values: impl IntoIterator<Item = (V, f64)>,
    ) -> fmt::Result {
        use prometheus_client::encoding::EncodeMetric;
        let mut encoder = self.encoder.encode_descriptor(
            metric.name,
            metric.help,
            None,
            match metric.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
            },
        )?;
        for (labels, value) in values {
            let labels = labelled(metric, labels.as_ref());
            let family = encoder.encode_family(&labels)?;
            match metric.kind {
                Kind::Counter => ConstCounter::new(value).encode(family)?,
                Kind::Gauge => ConstGauge::new(value).encode(family)?,
                // Those have more than a value.
                Kind::Histogram => return Err(fmt::Error),
            }
        }
        Ok(())
    }

    /// As [`Self::write`], for a histogram.
    pub fn write_durations<V: AsRef<[String]>>(
        &mut self,
        metric: Metric,
        values: impl IntoIterator<Item = (V, Recorded)>,
    ) -> fmt::Result {
        let (name, help) = (metric.name, metric.help);
        let mut encoder =
            self.encoder
                .encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (labels, recorded) in values {
            let labels = labelled(metric, labels.as_ref());
            // The largest number stands for no bound.
            let bounds = BOUNDS.iter().map(Duration::as_secs_f64).chain([f64::MAX]);
            let buckets: Vec<(f64, u64)> = bounds.zip(recorded.counts).collect();
            let (sum, count) = (recorded.sum.as_secs_f64(), recorded.count());
            let mut family = encoder.encode_family(&labels)?;
            family.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
            if let Some(exemplar) = &recorded.exemplar {
                self.exemplars.add(metric, &labels, exemplar);
            }
        }
        Ok(())
    }

    /// The value of a metric without labels.
    pub fn write_one(&mut self, metric: Metric, value: f64) -> fmt::Result {
        self.write(metric, [([].as_slice(), value)])
    }
}

fn labelled(metric: Metric, values: &[String]) -> Vec<(String, String)> {
    let names = metric.labels.iter().map(ToString::to_string);
    names.zip(values.iter().cloned()).collect()
}

/// Writes all metrics when they are asked for.
pub type Source = Box<dyn Fn(&mut Writer<'_>) -> fmt::Result + Send + Sync>;

struct FromSource {
    source: Source,
    exemplars: Exemplars,
}

impl fmt::Debug for FromSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FromSource")
    }
}

impl Collector for FromSource {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.exemplars.begin();
        (self.source)(&mut Writer {
            encoder,
            exemplars: self.exemplars.clone(),
        })
    }
}

/// Makes the text of the metrics.
pub struct Exporter {
    registry: Registry,
    exemplars: Exemplars,
}

impl Exporter {
    /// Takes the values from `source` at each call.
    pub fn new(source: Source) -> Self {
        let mut registry = Registry::default();
        let exemplars = Exemplars::default();
        registry.register_collector(Box::new(FromSource {
            source,
            exemplars: exemplars.clone(),
        }));
        Self {
            registry,
            exemplars,
        }
    }

    /// The text in the OpenMetrics format.
    pub fn render(&self) -> String {
        self.exemplars.put_into(self.text())
    }

    fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail; a source that fails leaves the text without its end
        // mark, which a scraper refuses.
        match text::encode(&mut text, &self.registry) {
            Ok(()) => text,
            Err(fmt::Error) => String::new(),
        }
    }

    /// The text in Prometheus' own format, in which a counter's family has the name that its values
    /// have.
    pub fn render_prometheus(&self) -> String {
        let text = self.text();
        let lines = text.lines().filter(|line| *line != "# EOF");
        let is_counter = |name: &str| {
            let mut counters = CATALOGUE.iter().filter(|m| m.kind == Kind::Counter);
            counters.any(|metric| metric.name == name)
        };
        let renamed = lines.map(|line| {
            let about = line
                .strip_prefix("# HELP ")
                .or(line.strip_prefix("# TYPE "));
            let name = about.and_then(|about| about.split(' ').next());
            match name {
                Some(name) if is_counter(name) => {
                    line.replacen(name, &format!("{name}_total"), 1) + "\n"
                }
                _ => format!("{line}\n"),
            }
        });
        renamed.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_convention() {
        for metric in CATALOGUE {
            assert!(metric.name.starts_with("clerk_authz_"), "{}", metric.name);
            assert!(
                !metric.name.ends_with("_total"),
                "{}: the text adds _total",
                metric.name
            );
        }
    }

    #[test]
    fn values_are_written_with_their_labels() {
        let exporter = Exporter::new(Box::new(|writer| {
            writer.write_one(CALLS_SHED, 2.0)?;
            writer.write(KEYS, [(["default".to_owned()], 1.0)])
        }));
        let text = exporter.render();
        assert!(text.contains("clerk_authz_calls_shed_total{} 2"), "{text}");
        assert!(
            text.contains("clerk_authz_keys{instance=\"default\"} 1"),
            "{text}"
        );
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn a_duration_that_was_followed_is_shown_in_its_class_and_in_openmetrics_alone() {
        for (took, bound) in [(3, "0.005"), (60_000, "+Inf")] {
            let histogram = crate::histogram::Histogram::default();
            let took = Duration::from_millis(took);
            histogram.record(took);
            histogram.show(took, "0af7651916cd43dd8448eb211c80319c".to_owned());
            let exporter = Exporter::new(Box::new(move |writer| {
                let other = crate::histogram::Histogram::default();
                let of = |rpc: &str| [rpc.to_owned()];
                let values = [
                    (of("Check"), histogram.read()),
                    (of("GetUser"), other.read()),
                ];
                writer.write_durations(GRPC_CALL_DURATION, values)
            }));

            let text = exporter.render();

            let expected = format!(
                "clerk_authz_grpc_call_duration_seconds_bucket{{le=\"{bound}\",rpc=\"Check\"}} 1 \
                 # {{trace_id=\"0af7651916cd43dd8448eb211c80319c\"}} {}\n",
                took.as_secs_f64()
            );
            assert!(text.contains(&expected), "{text}");
            assert_eq!(text.matches("trace_id").count(), 1, "{text}");
            assert!(text.ends_with("# EOF\n"), "{text}");
            assert!(!exporter.render_prometheus().contains("trace_id"));
        }
    }
}
