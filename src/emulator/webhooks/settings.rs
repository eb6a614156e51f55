//! Where webhooks go, signed with what, and what becomes of them on their way.

use std::{net::IpAddr, ops::RangeInclusive, time::Duration};

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::Url;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::emulator::ids::random_id;

/// What Clerk's secrets begin with.
const SECRET_PREFIX: &str = "whsec_";
/// Svix's waits after an attempt that failed: 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 10 h.
const SVIX_RETRY_MILLISECONDS: [u64; 7] = [
    5_000, 300_000, 1_800_000, 7_200_000, 18_000_000, 36_000_000, 36_000_000,
];
/// How long Svix waits for an answer.
const SVIX_TIMEOUT_MILLISECONDS: u64 = 30_000;
/// The most retries, secrets of a rotation, and attempts at once.
const MAX_RETRIES: usize = 20;
const MAX_SECRETS: usize = 10;
const CONCURRENT: RangeInclusive<usize> = 1..=64;
/// The longest wait of any kind.
const MAX_MILLISECONDS: u64 = 86_400_000;

/// The unit of an envelope's `timestamp`: Clerk's guide has milliseconds, its schema file seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimestampUnit {
    /// As in the guide.
    #[default]
    Milliseconds,
    /// As in the examples of the schema file.
    Seconds,
}

/// An endpoint that is told of every change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebhookSettings {
    /// `http`, on this machine.
    pub url: String,
    /// `whsec_…`, which signs every message; made up where empty.
    pub secret: String,
    /// Those of before a rotation, which sign every message too.
    pub old_secrets: Vec<String>,
    /// How many of the messages never arrive, from 0 to 1.
    pub lose: f64,
    /// How many of the messages arrive twice, from 0 to 1.
    pub double: f64,
    /// How long each waits before it is sent, at least and at most. Those behind wait with it.
    pub delay_milliseconds: [u64; 2],
    /// Each waits by itself and up to [`WebhookSettings::SHUFFLE`] longer, so that later ones
    /// overtake.
    pub shuffle: bool,
    /// The unit of the envelope's `timestamp`.
    pub timestamps: TimestampUnit,
    /// The waits after attempts that failed; behind the last nothing is tried any more.
    pub retry_milliseconds: Vec<u64>,
    /// How long an attempt waits for its answer.
    pub timeout_milliseconds: u64,
    /// How many attempts are under way at once.
    pub concurrent: usize,
    /// Of what is lost, doubled and delayed: one seed gives one sequence, message by message.
    pub seed: u64,
}

impl Default for WebhookSettings {
    fn default() -> Self {
        Self {
            url: String::new(),
            secret: String::new(),
            old_secrets: Vec::new(),
            lose: 0.0,
            double: 0.0,
            delay_milliseconds: [0, 0],
            shuffle: false,
            timestamps: TimestampUnit::Milliseconds,
            retry_milliseconds: SVIX_RETRY_MILLISECONDS.to_vec(),
            timeout_milliseconds: SVIX_TIMEOUT_MILLISECONDS,
            concurrent: 1,
            seed: 1,
        }
    }
}

impl WebhookSettings {
    /// How much longer a shuffled message waits at most.
    pub const SHUFFLE: Duration = Duration::from_millis(200);

    /// Everything to this address, in order and once.
    pub fn to(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            ..Self::default()
        }
    }
}

/// Settings that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{parameter}: expected {expected}")]
pub struct InvalidWebhooks {
    /// Which of them.
    pub parameter: &'static str,
    /// What it must be.
    pub expected: String,
}

/// Settings that were checked, with what was parsed from them.
pub(super) struct Endpoint {
    pub(super) settings: WebhookSettings,
    pub(super) url: Url,
    pub(super) keys: Vec<hmac::Key>,
}

impl Endpoint {
    pub(super) fn check(mut settings: WebhookSettings) -> Result<Self, InvalidWebhooks> {
        let wrong = |parameter, expected: &str| InvalidWebhooks {
            parameter,
            expected: expected.to_owned(),
        };
        let url = Url::parse(&settings.url).ok().filter(is_of_this_machine);
        let url = url.ok_or_else(|| {
            let example = "such as \"http://127.0.0.1:8080/webhooks/clerk\"";
            wrong("url", &format!("http on this machine, {example}"))
        })?;
        if settings.secret.is_empty() {
            settings.secret = new_secret();
        }
        if settings.old_secrets.len() >= MAX_SECRETS {
            let expected = format!("fewer than {MAX_SECRETS}");
            return Err(wrong("old_secrets", &expected));
        }
        let expected = "\"whsec_\", then a key that is not empty, in base64 with its padding";
        let mut keys = vec![key(&settings.secret).ok_or_else(|| wrong("secret", expected))?];
        for secret in &settings.old_secrets {
            keys.push(key(secret).ok_or_else(|| wrong("old_secrets", expected))?);
        }
        for (parameter, share) in [("lose", settings.lose), ("double", settings.double)] {
            if !(0.0..=1.0).contains(&share) {
                return Err(wrong(parameter, "a number from 0 to 1"));
            }
        }
        let [least, most] = settings.delay_milliseconds;
        let day = format!("at most {MAX_MILLISECONDS}, a day");
        if least > most || most > MAX_MILLISECONDS {
            let expected = format!("the least before the most, {day}");
            return Err(wrong("delay_milliseconds", &expected));
        }
        let waits = &settings.retry_milliseconds;
        if waits.len() > MAX_RETRIES || waits.iter().any(|wait| *wait > MAX_MILLISECONDS) {
            let expected = format!("at most {MAX_RETRIES} waits, each {day}");
            return Err(wrong("retry_milliseconds", &expected));
        }
        if !(1..=MAX_MILLISECONDS).contains(&settings.timeout_milliseconds) {
            return Err(wrong("timeout_milliseconds", &format!("1 or more, {day}")));
        }
        if !CONCURRENT.contains(&settings.concurrent) {
            let (least, most) = (CONCURRENT.start(), CONCURRENT.end());
            return Err(wrong("concurrent", &format!("{least} to {most}")));
        }
        Ok(Self {
            settings,
            url,
            keys,
        })
    }
}

/// The emulator tells nobody outside who lives in it.
fn is_of_this_machine(url: &Url) -> bool {
    let is_here = match url.host_str() {
        Some("localhost") => true,
        Some(host) => host
            .trim_matches(['[', ']'])
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.is_loopback()),
        None => false,
    };
    url.scheme() == "http" && is_here
}

/// A signing secret that nobody had before: 24 bytes, as Svix makes them. Opens nothing but this
/// emulator's endpoint.
pub fn new_secret() -> String {
    let key: String = random_id().chars().take(24).collect();
    format!("{SECRET_PREFIX}{}", STANDARD.encode(key))
}

fn key(secret: &str) -> Option<hmac::Key> {
    let key = STANDARD.decode(secret.strip_prefix(SECRET_PREFIX)?).ok()?;
    (!key.is_empty()).then(|| hmac::Key::new(hmac::HMAC_SHA256, &key))
}
