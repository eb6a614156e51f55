//! A record of the decision log. docs/decision-log.schema.json is its schema, and
//! docs/decision-log.md says what each member is for.

use std::{cell::RefCell, io::Write, time::Duration};

#[cfg(test)]
use serde::Serialize;

use crate::{
    authz::{Source, Verified, VerifiedMachine},
    door::grpc::Rpc,
    identity::{MachineSubject, Timestamp},
    reason::Reason,
    trace,
};

/// What became of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Serialize), serde(rename_all = "snake_case"))]
pub(in crate::door) enum Ruling {
    /// Yes.
    Allowed,
    /// No.
    Denied,
    /// Neither.
    CannotTell,
}

impl Ruling {
    const fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::CannotTell => "cannot_tell",
        }
    }
}

/// What is known of a decision; nothing of a credential.
#[derive(Clone, Copy)]
pub(in crate::door) struct Record<'a> {
    pub(in crate::door) rpc: Rpc,
    pub(in crate::door) ruling: Ruling,
    pub(in crate::door) reason: Reason,
    /// That which the answer has; `None` where it has none, and the record gets one.
    pub(in crate::door) decision_id: Option<&'a str>,
    pub(in crate::door) request_id: Option<&'a str>,
    /// The rule's name for who asks.
    pub(in crate::door) caller: Option<&'a str>,
    pub(in crate::door) instance: Option<&'a str>,
    pub(in crate::door) route: Option<&'a str>,
    pub(in crate::door) policy_version: Option<&'a str>,
    pub(in crate::door) user_id: Option<&'a str>,
    pub(in crate::door) session_id: Option<&'a str>,
    pub(in crate::door) actor: Option<&'a str>,
    pub(in crate::door) token_type: Option<&'static str>,
    pub(in crate::door) token_id: Option<&'a str>,
    pub(in crate::door) machine_id: Option<&'a str>,
    pub(in crate::door) client_id: Option<&'a str>,
    pub(in crate::door) organization: Option<&'a str>,
    pub(in crate::door) source: Option<Source>,
    /// What came of a browser's handshake.
    pub(in crate::door) handshake: Option<&'static str>,
    /// The identity provider whose assertion it is; only one that is configured.
    pub(in crate::door) provider: Option<&'a str>,
}

impl<'a> Record<'a> {
    /// Of which nothing else is known.
    pub(in crate::door) const fn new(rpc: Rpc, ruling: Ruling, reason: Reason) -> Self {
        Self {
            rpc,
            ruling,
            reason,
            decision_id: None,
            request_id: None,
            caller: None,
            instance: None,
            route: None,
            policy_version: None,
            user_id: None,
            session_id: None,
            actor: None,
            token_type: None,
            token_id: None,
            machine_id: None,
            client_id: None,
            organization: None,
            source: None,
            handshake: None,
            provider: None,
        }
    }

    /// About whom a good token speaks. Of a bad one nothing is believed, and nothing recorded.
    pub(in crate::door) fn of(self, verified: Option<&'a Verified>) -> Self {
        let Some(verified) = verified else {
            return self;
        };
        let session = &verified.session;
        Self {
            instance: Some(verified.instance().name.as_str()),
            user_id: Some(session.user_id.as_str()),
            session_id: Some(session.session_id.as_str()),
            actor: session.actor.as_ref().map(|actor| &*actor.subject),
            ..self
        }
    }

    /// The same of a token that is of no session.
    pub(in crate::door) fn of_machine(self, verified: Option<&'a VerifiedMachine>) -> Self {
        let Some(verified) = verified else {
            return self;
        };
        let machine = &*verified.machine;
        let subject = Some(machine.subject.as_str());
        let (mut machine_id, mut user_id, mut organization) = (None, None, self.organization);
        match machine.subject {
            MachineSubject::Machine(_) => machine_id = subject,
            MachineSubject::User(_) => user_id = subject,
            MachineSubject::Organization(_) => organization = subject,
        }
        Self {
            instance: Some(verified.instance().name.as_str()),
            token_type: Some(machine.machine_type.name()),
            token_id: machine.token_id.as_deref(),
            machine_id,
            user_id,
            organization,
            client_id: machine.client_id.as_deref(),
            ..self
        }
    }

    /// Tells the trace that it is a part of, where there is one.
    pub(super) fn note(&self) {
        if !trace::is_followed() {
            return;
        }
        trace::note("clerk_authz.reason", || self.reason.name().into());
        for (name, value) in [
            ("clerk_authz.decision_id", self.decision_id),
            ("clerk_authz.instance", self.instance),
            ("clerk_authz.route", self.route),
        ] {
            if let Some(value) = value {
                trace::note(name, || value.to_owned().into());
            }
        }
    }

    /// Gives it as JSON, with its end, to `take`.
    pub(super) fn write(&self, made: &Made<'_>, take: impl FnOnce(&[u8])) {
        let trace_id = trace::id();
        let line = Line {
            time: made.time,
            decision_id: made.decision_id,
            request_id: self.request_id,
            trace_id: trace_id.as_deref(),
            caller: self.caller,
            door: match self.rpc {
                Rpc::Check => "ext_authz",
                Rpc::ForwardAuth => "forward_auth",
                Rpc::VerifySession
                | Rpc::BatchVerifySession
                | Rpc::CheckOrgPermission
                | Rpc::BatchCheckOrgPermission
                | Rpc::SyncUser
                | Rpc::GetUser
                | Rpc::WatchUsers
                | Rpc::ExchangeAssertion
                | Rpc::ExplainDecision => "grpc",
            },
            rpc: self.rpc.name(),
            outcome: self.ruling,
            reason: self.reason.name(),
            instance: self.instance,
            route: self.route,
            policy_version: self.policy_version,
            user_id: self.user_id,
            session_id: self.session_id,
            actor: self.actor,
            token_type: self.token_type,
            token_id: self.token_id,
            machine_id: self.machine_id,
            client_id: self.client_id,
            organization: self.organization,
            source: self.source.map(Source::name),
            handshake: self.handshake,
            provider: self.provider,
            latency_microseconds: u64::try_from(made.latency.as_micros()).unwrap_or(u64::MAX),
            sample_rate: made.sample_rate,
        };
        PAPER.with_borrow_mut(|paper| {
            line.write(paper);
            take(&paper.line);
        });
    }
}

/// How a record came to be.
pub(super) struct Made<'a> {
    pub(super) time: Timestamp,
    pub(super) decision_id: &'a str,
    pub(super) latency: Duration,
    pub(super) sample_rate: f64,
}

thread_local! {
    static PAPER: RefCell<Paper> = RefCell::default();
}

/// What a thread writes on, again and again: neither memory nor the date is made anew for each record.
#[derive(Default)]
struct Paper {
    line: Vec<u8>,
    /// The second that was written last, and its text up to the point.
    second: Option<(i64, String)>,
    /// The part that was written last, as bits, and its text.
    rate: Option<(u64, String)>,
}

impl Paper {
    fn put_time(&mut self, time: Timestamp) {
        let second = time.unix_seconds();
        if self.second.as_ref().is_none_or(|(last, _)| *last != second) {
            let text = Timestamp::from_unix_seconds(second).to_string();
            match text.strip_suffix("000Z") {
                Some(text) => self.second = Some((second, text.to_owned())),
                None => self.second = None,
            }
        }
        match &self.second {
            Some((_, text)) => {
                let millis = time.unix_millis().rem_euclid(1_000);
                let digit = |of: i64| b'0' + u8::try_from(of % 10).unwrap_or_default();
                let millis = [digit(millis / 100), digit(millis / 10), digit(millis), b'Z'];
                self.line.extend_from_slice(text.as_bytes());
                self.line.extend_from_slice(&millis);
            }
            // It has no such form. Writing into memory does not fail.
            None => {
                let _ = write!(self.line, "{time}");
            }
        }
    }

    fn put_rate(&mut self, rate: f64) {
        let bits = rate.to_bits();
        let text = match self.rate.take() {
            Some((last, text)) if last == bits => text,
            Some(_) | None => serde_json::json!(rate).to_string(),
        };
        self.line.extend_from_slice(text.as_bytes());
        self.rate = Some((bits, text));
    }
}

/// What is not known is not there.
#[cfg_attr(test, derive(Serialize))]
struct Line<'a> {
    #[cfg_attr(test, serde(serialize_with = "tests::as_text"))]
    time: Timestamp,
    decision_id: &'a str,
    #[cfg_attr(test, serde(skip_serializing_if = "Option::is_none"))]
    request_id: Option<&'a str>,
    #[cfg_attr(test, serde(skip_serializing_if = "Option::is_none"))]
    trace_id: Option<&'a str>,
    #[cfg_attr(test, serde(skip_serializing_if = "Option::is_none"))]
    caller: Option<&'a str>,
    door: &'static str,
    rpc: &'static str,
    outcome: Ruling,
    reason: &'static str,
    #[cfg_attr(test, serde(skip_serializing_if = "Option::is_none"))]
    instance: Option<&'a str>,
    #[cfg_attr(test, serde(skip_serializing_if = "Option::is_none"))]
    route: Option<&'a str>,
    #[cfg_attr(test, serde(skip_serializing_if = "Option::is_none"))]
    policy_version: Option<&'a str>,
    #[cfg_attr(test, serde(skip_serializing_if = "Option::is_none"))]
    user_id: Option<&'a str>,
    #[cfg_attr(test, serde(skip_serializing_if = "Option::is_none"))]
    session_id: Option<&'a str>,
    #[cfg_attr(test, serde(skip_serializing_if = "Option::is_none"))]
    actor: Option<&'a str>,
    #[cfg_attr(test, serde(skip_serializing_if = "Option::is_none"))]
    token_type: Option<&'static str>,
    #[cfg_attr(test, serde(skip_serializing_if = "Option::is_none"))]
    token_id: Option<&'a str>,
    #[cfg_attr(test, serde(skip_serializing_if = "Option::is_none"))]
    machine_id: Option<&'a str>,
    #[cfg_attr(test, serde(skip_serializing_if = "Option::is_none"))]
    client_id: Option<&'a str>,
    #[cfg_attr(test, serde(skip_serializing_if = "Option::is_none"))]
    organization: Option<&'a str>,
    #[cfg_attr(test, serde(skip_serializing_if = "Option::is_none"))]
    source: Option<&'static str>,
    #[cfg_attr(test, serde(skip_serializing_if = "Option::is_none"))]
    handshake: Option<&'static str>,
    #[cfg_attr(test, serde(skip_serializing_if = "Option::is_none"))]
    provider: Option<&'a str>,
    latency_microseconds: u64,
    sample_rate: f64,
}

/// Writes the members whose texts are known. The names are put together with what stands around them when
/// this is compiled: a piece more for each member is what costs most in a record.
macro_rules! members {
    ($line:ident, $($name:literal: $text:expr,)*) => {
        $(if let Some(text) = $text {
            put($line, concat!("\",\"", $name, "\":\""), text);
        })*
    };
}

impl Line<'_> {
    /// As JSON, with its end. Written member by member: at a hundred thousand decisions a second serde's
    /// way, which takes a text byte by byte, costs more than the decision.
    fn write(&self, paper: &mut Paper) {
        let Self {
            time,
            decision_id,
            request_id,
            trace_id,
            caller,
            door,
            rpc,
            outcome,
            reason,
            instance,
            route,
            policy_version,
            user_id,
            session_id,
            actor,
            token_type,
            token_id,
            machine_id,
            client_id,
            organization,
            source,
            handshake,
            provider,
            latency_microseconds,
            sample_rate,
        } = *self;
        paper.line.clear();
        paper.line.extend_from_slice(b"{\"time\":\"");
        paper.put_time(time);
        let line = &mut paper.line;
        members!(line,
            "decision_id": Some(decision_id),
            "request_id": request_id,
            "trace_id": trace_id,
            "caller": caller,
            "door": Some(door),
            "rpc": Some(rpc),
            "outcome": Some(outcome.name()),
            "reason": Some(reason),
            "instance": instance,
            "route": route,
            "policy_version": policy_version,
            "user_id": user_id,
            "session_id": session_id,
            "actor": actor,
            "token_type": token_type,
            "token_id": token_id,
            "machine_id": machine_id,
            "client_id": client_id,
            "organization": organization,
            "source": source,
            "handshake": handshake,
            "provider": provider,
        );
        line.extend_from_slice(b"\",\"latency_microseconds\":");
        // Writing into memory does not fail, nor are these numbers that JSON has not.
        let _ = serde_json::to_writer(&mut *line, &latency_microseconds);
        line.extend_from_slice(b",\"sample_rate\":");
        paper.put_rate(sample_rate);
        paper.line.extend_from_slice(b"}\n");
    }
}

/// Ends the text before it, and begins one behind `key`; the text's own end is left to the next.
fn put(line: &mut Vec<u8>, key: &str, text: &str) {
    line.extend_from_slice(key.as_bytes());
    // All of it is looked at: that the processor does for many bytes at once.
    let is_special = |byte: u8| byte < b' ' || byte == b'"' || byte == b'\\';
    if text
        .bytes()
        .fold(false, |found, byte| found | is_special(byte))
    {
        // It writes the quotes around the text, too.
        line.pop();
        let _ = serde_json::to_writer(&mut *line, text);
        line.pop();
    } else {
        line.extend_from_slice(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};
    use serde::Serializer;

    use super::*;

    pub(super) fn as_text<S: Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(time)
    }

    proptest! {
        #[test]
        fn a_line_is_what_serde_makes_of_it(
            texts in vec(option::of("[ -~]{0,40}|\\PC{0,40}|[\\x00-\\x7f]{0,40}"), 16),
            (millis, step) in (prop_oneof![any::<i64>(), 0..4_000_000_000_000_i64], -3_000..3_000_i64),
            (latency, sample_rate) in (any::<u64>(), 0.0..=1.0_f64),
            ruling in 0..3_usize,
        ) {
            let text = |at: usize| texts[at].as_deref();
            let line = Line {
                time: Timestamp::from_unix_millis(millis),
                decision_id: text(0).unwrap_or_default(),
                request_id: text(1),
                trace_id: text(2),
                caller: text(3),
                door: "grpc",
                rpc: "VerifySession",
                outcome: [Ruling::Allowed, Ruling::Denied, Ruling::CannotTell][ruling],
                reason: "ALLOWED",
                instance: text(4),
                route: text(5),
                policy_version: text(6),
                user_id: text(7),
                session_id: text(8),
                actor: text(9),
                token_type: text(10).map(|_| "m2m_token"),
                token_id: text(11),
                machine_id: text(12),
                client_id: text(13),
                organization: text(14),
                source: text(0).map(|_| "TOKEN"),
                handshake: text(1).map(|_| "sent"),
                provider: text(15),
                latency_microseconds: latency,
                sample_rate,
            };
            let mut expected = serde_json::to_vec(&line).expect("JSON");
            expected.push(b'\n');

            // Twice, as the second line of a second is written otherwise.
            let mut paper = Paper::default();
            for _ in 0..2 {
                line.write(&mut paper);
                prop_assert_eq!(String::from_utf8_lossy(&paper.line), String::from_utf8_lossy(&expected));
            }
            let later = Line { time: Timestamp::from_unix_millis(millis.wrapping_add(step)), ..line };
            let mut expected = serde_json::to_vec(&later).expect("JSON");
            expected.push(b'\n');
            later.write(&mut paper);
            prop_assert_eq!(String::from_utf8_lossy(&paper.line), String::from_utf8_lossy(&expected));
        }
    }
}
