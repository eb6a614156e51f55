//! A record of the decision log. docs/decision-log.schema.json is its schema, and
//! docs/decision-log.md says what each member is for.

use std::{cell::RefCell, time::Duration};

use serde::Serialize;

use super::WriteLine;
use crate::{
    authz::{OrganizationRef, Source, Verified, VerifiedMachine},
    door::grpc::Rpc,
    identity::{InstanceName, MachineSubject, OrganizationId, SessionId, Timestamp, UserId},
    reason::Reason,
    trace,
};

/// Writes the members whose texts are known, as they are or escaped: each ends the text before it, and
/// leaves its own open. The names are put together with what stands around them when this is compiled.
macro_rules! members {
    ($line:expr, $($name:literal: $put:ident($text:expr),)*) => {
        $(if let Some(text) = $text {
            $line.extend_from_slice(concat!("\",\"", $name, "\":\"").as_bytes());
            $put($line, text);
        })*
    };
}

/// What became of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// An organization's id, or the slug by which it was named.
#[derive(Clone, Copy)]
pub(in crate::door) struct OrganizationName<'a>(&'a str);

impl<'a> From<&'a OrganizationId> for OrganizationName<'a> {
    fn from(id: &'a OrganizationId) -> Self {
        Self(id.as_str())
    }
}

impl<'a> From<&'a OrganizationRef> for OrganizationName<'a> {
    fn from(named: &'a OrganizationRef) -> Self {
        Self(named.as_str())
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
    pub(in crate::door) instance: Option<&'a InstanceName>,
    pub(in crate::door) route: Option<&'a str>,
    pub(in crate::door) policy_version: Option<&'a str>,
    pub(in crate::door) user_id: Option<&'a UserId>,
    pub(in crate::door) session_id: Option<&'a SessionId>,
    pub(in crate::door) actor: Option<&'a str>,
    pub(in crate::door) token_type: Option<&'static str>,
    pub(in crate::door) token_id: Option<&'a str>,
    pub(in crate::door) machine_id: Option<&'a str>,
    pub(in crate::door) client_id: Option<&'a str>,
    pub(in crate::door) organization: Option<OrganizationName<'a>>,
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

    /// Adds about whom a good token speaks. Of a bad one nothing is believed, and nothing recorded.
    pub(in crate::door) fn add(&mut self, verified: &'a Verified) {
        let session = &verified.session;
        self.instance = Some(&verified.instance().name);
        self.user_id = Some(&session.user_id);
        self.session_id = Some(&session.session_id);
        self.actor = session.actor.as_ref().map(|actor| &*actor.subject);
    }

    /// The same of a token that is of no session.
    pub(in crate::door) fn add_machine(&mut self, verified: &'a VerifiedMachine) {
        let machine = &*verified.machine;
        match &machine.subject {
            MachineSubject::Machine(id) => self.machine_id = Some(id),
            MachineSubject::User(id) => self.user_id = Some(id),
            MachineSubject::Organization(id) => self.organization = Some(id.into()),
        }
        self.instance = Some(&verified.instance().name);
        self.token_type = Some(machine.machine_type.name());
        self.token_id = machine.token_id.as_deref();
        self.client_id = machine.client_id.as_deref();
    }

    /// Tells the trace that it is a part of.
    pub(super) fn note(&self) {
        trace::note("clerk_authz.reason", || self.reason.name().into());
        for (name, value) in [
            ("clerk_authz.decision_id", self.decision_id),
            (
                "clerk_authz.instance",
                self.instance.map(InstanceName::as_str),
            ),
            ("clerk_authz.route", self.route),
        ] {
            if let Some(value) = value {
                trace::note(name, || value.to_owned().into());
            }
        }
    }

    /// Writes it as JSON, with its end, where `write` says; what is not known is not there.
    pub(super) fn write(&self, made: &Made<'_>, write: &WriteLine) {
        LAST.with_borrow_mut(|last| {
            write(&mut |line| self.put(line, made, last));
        });
    }

    /// Member by member: at a hundred thousand decisions a second serde's way, which takes a text byte
    /// by byte, costs more than the decision.
    fn put(&self, line: &mut Vec<u8>, made: &Made<'_>, last: &mut Last) {
        let Self {
            rpc,
            ruling,
            reason,
            decision_id: _,
            request_id,
            caller,
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
        } = *self;
        line.extend_from_slice(b"{\"time\":\"");
        put_time(line, &mut last.second, made.time);
        members!(line,
            "decision_id": plain(Some(made.decision_id)),
            "request_id": escaped(request_id),
            "trace_id": plain(made.trace_id),
            "caller": escaped(caller),
        );
        line.extend_from_slice(last.verdict.of((rpc, ruling, reason), |text| {
            members!(text,
                "door": plain(Some(door(rpc))),
                "rpc": plain(Some(rpc.name())),
                "outcome": plain(Some(ruling.name())),
                "reason": plain(Some(reason.name())),
            );
        }));
        members!(line,
            "instance": plain(instance.map(InstanceName::as_str)),
            "route": escaped(route),
            "policy_version": escaped(policy_version),
            "user_id": plain(user_id.map(UserId::as_str)),
            "session_id": plain(session_id.map(SessionId::as_str)),
            "actor": escaped(actor),
            "token_type": plain(token_type),
            "token_id": escaped(token_id),
            "machine_id": escaped(machine_id),
            "client_id": escaped(client_id),
            "organization": plain(organization.map(|OrganizationName(name)| name)),
            "source": plain(source.map(Source::name)),
            "handshake": plain(handshake),
            "provider": escaped(provider),
        );
        line.extend_from_slice(b"\",\"latency_microseconds\":");
        put_number(line, &made.latency_microseconds());
        line.extend_from_slice(last.sample.of(made.sample_rate.to_bits(), |text| {
            text.extend_from_slice(b",\"sample_rate\":");
            put_number(text, &made.sample_rate);
            text.extend_from_slice(b"}\n");
        }));
    }
}

const fn door(rpc: Rpc) -> &'static str {
    match rpc {
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
    }
}

/// How a record came to be.
pub(super) struct Made<'a> {
    /// The trace that it is a part of.
    pub(super) trace_id: Option<&'a str>,
    pub(super) time: Timestamp,
    pub(super) decision_id: &'a str,
    pub(super) latency: Duration,
    pub(super) sample_rate: f64,
}

impl Made<'_> {
    fn latency_microseconds(&self) -> u64 {
        u64::try_from(self.latency.as_micros()).unwrap_or(u64::MAX)
    }
}

thread_local! {
    static LAST: RefCell<Last> = RefCell::default();
}

/// What a thread's next record may have in common with its last.
#[derive(Default)]
struct Last {
    /// A second, up to the point.
    second: Kept<i64>,
    /// The members that say who decided what, and why.
    verdict: Kept<(Rpc, Ruling, Reason)>,
    /// The end, by the bits of the part that is recorded.
    sample: Kept<u64>,
}

/// The text that was last made, and what of.
struct Kept<K> {
    of: Option<K>,
    text: Vec<u8>,
}

impl<K> Default for Kept<K> {
    fn default() -> Self {
        Self {
            of: None,
            text: Vec::new(),
        }
    }
}

impl<K: PartialEq> Kept<K> {
    fn of(&mut self, key: K, make: impl FnOnce(&mut Vec<u8>)) -> &[u8] {
        if self.of.as_ref() != Some(&key) {
            self.of = None;
            self.text.clear();
            make(&mut self.text);
            self.of = Some(key);
        }
        &self.text
    }
}

/// As `Timestamp` writes it.
fn put_time(line: &mut Vec<u8>, second: &mut Kept<i64>, time: Timestamp) {
    let of = time.unix_seconds();
    let text = second.of(of, |text| {
        let whole = Timestamp::from_unix_seconds(of).to_string();
        // One of a time that has no such form is empty.
        let whole = whole.strip_suffix("000Z").unwrap_or_default();
        text.extend_from_slice(whole.as_bytes());
    });
    if text.is_empty() {
        line.extend_from_slice(time.to_string().as_bytes());
        return;
    }
    let millis = time.unix_millis().rem_euclid(1_000);
    let digit = |of: i64| b'0' + u8::try_from(of % 10).unwrap_or_default();
    line.extend_from_slice(text);
    line.extend_from_slice(&[digit(millis / 100), digit(millis / 10), digit(millis), b'Z']);
}

/// Writing into memory does not fail, nor are these numbers that JSON has not.
fn put_number(line: &mut Vec<u8>, number: &impl Serialize) {
    let _ = serde_json::to_writer(line, number);
}

/// Adds a text of ours, or an id that was looked at when it came, in which JSON escapes nothing.
fn plain(line: &mut Vec<u8>, text: &str) {
    line.extend_from_slice(text.as_bytes());
}

/// Adds whatever text. Its first quote stands there, its last is left to what follows.
fn escaped(line: &mut Vec<u8>, text: &str) {
    if is_plain(text) {
        plain(line, text);
    } else {
        // It writes the quotes around the text, too.
        line.pop();
        let _ = serde_json::to_writer(&mut *line, text);
        line.pop();
    }
}

/// Whether JSON takes it as it is. All of it is looked at: that the processor does for many bytes at once.
fn is_plain(text: &str) -> bool {
    let is_special = |byte: u8| byte < b' ' || byte == b'"' || byte == b'\\';
    !text
        .bytes()
        .fold(false, |found, byte| found | is_special(byte))
}

#[cfg(test)]
mod tests {
    use std::{fmt::Debug, str::FromStr};

    use proptest::{collection::vec, option, prelude::*, sample::select};
    use serde_json::{Value, json};

    use super::*;

    /// The same by serde.
    fn by_serde(record: &Record<'_>, made: &Made<'_>) -> String {
        let members = [
            ("time", Some(json!(made.time.to_string()))),
            ("decision_id", Some(json!(made.decision_id))),
            ("request_id", record.request_id.map(Value::from)),
            ("trace_id", made.trace_id.map(Value::from)),
            ("caller", record.caller.map(Value::from)),
            ("door", Some(json!(door(record.rpc)))),
            ("rpc", Some(json!(record.rpc.name()))),
            ("outcome", Some(json!(record.ruling.name()))),
            ("reason", Some(json!(record.reason.name()))),
            ("instance", record.instance.map(|name| json!(name.as_str()))),
            ("route", record.route.map(Value::from)),
            ("policy_version", record.policy_version.map(Value::from)),
            ("user_id", record.user_id.map(|id| json!(id.as_str()))),
            ("session_id", record.session_id.map(|id| json!(id.as_str()))),
            ("actor", record.actor.map(Value::from)),
            ("token_type", record.token_type.map(Value::from)),
            ("token_id", record.token_id.map(Value::from)),
            ("machine_id", record.machine_id.map(Value::from)),
            ("client_id", record.client_id.map(Value::from)),
            (
                "organization",
                record
                    .organization
                    .map(|OrganizationName(name)| json!(name)),
            ),
            ("source", record.source.map(|source| json!(source.name()))),
            ("handshake", record.handshake.map(Value::from)),
            ("provider", record.provider.map(Value::from)),
            (
                "latency_microseconds",
                Some(json!(made.latency_microseconds())),
            ),
            ("sample_rate", Some(json!(made.sample_rate))),
        ];
        let known = members.map(|(name, value)| Some(format!("{}:{}", json!(name), value?)));
        let known: Vec<String> = known.into_iter().flatten().collect();
        format!("{{{}}}\n", known.join(","))
    }

    fn id<I: FromStr<Err: Debug> + Debug>(
        pattern: &'static str,
    ) -> impl Strategy<Value = Option<I>> {
        option::of(pattern.prop_map(|text| text.parse().expect("an id")))
    }

    fn rpcs() -> impl Strategy<Value = Rpc> {
        select(&[
            Rpc::Check,
            Rpc::ForwardAuth,
            Rpc::VerifySession,
            Rpc::SyncUser,
        ])
    }

    fn reasons() -> impl Strategy<Value = Reason> {
        select(&[
            Reason::Allowed,
            Reason::TokenExpired,
            Reason::ClerkUnavailable,
        ])
    }

    fn rulings() -> impl Strategy<Value = Ruling> {
        select(&[Ruling::Allowed, Ruling::Denied, Ruling::CannotTell])
    }

    proptest! {
        /// One after the other, as what is kept of the last record must not show in the next.
        #[test]
        fn records_are_what_serde_makes_of_them(
            texts in vec(option::of("[ -~]{0,40}|\\PC{0,40}|[\\x00-\\x7f]{0,40}"), 12),
            (instance, user_id, session_id, organization) in (
                id::<InstanceName>("[a-z0-9_-]{1,63}"),
                id::<UserId>("user_[A-Za-z0-9]{1,40}"),
                id::<SessionId>("sess_[A-Za-z0-9]{1,40}"),
                id::<OrganizationId>("org_[A-Za-z0-9]{1,40}"),
            ),
            (decision_id, trace_id) in ("[0-9a-f]{16}", option::of("[0-9a-f]{32}")),
            begin in prop_oneof![any::<i64>(), 0..4_000_000_000_000_i64],
            records in vec(
                (
                    -3_000..3_000_i64,
                    any::<u64>(),
                    prop_oneof![Just(1.0), 0.0..=1.0_f64],
                    (rpcs(), rulings(), reasons()),
                ),
                1..6,
            ),
        ) {
            let text = |at: usize| texts[at].as_deref();
            let mut last = Last::default();
            for (step, latency, sample_rate, (rpc, ruling, reason)) in records {
                let record = Record {
                    request_id: text(0),
                    caller: text(1),
                    instance: instance.as_ref(),
                    route: text(2),
                    policy_version: text(3),
                    user_id: user_id.as_ref(),
                    session_id: session_id.as_ref(),
                    actor: text(4),
                    token_type: text(5).map(|_| "m2m_token"),
                    token_id: text(6),
                    machine_id: text(7),
                    client_id: text(8),
                    organization: organization.as_ref().map(Into::into),
                    source: text(9).map(|_| Source::Token),
                    handshake: text(10).map(|_| "sent"),
                    provider: text(11),
                    ..Record::new(rpc, ruling, reason)
                };
                let made = Made {
                    trace_id: trace_id.as_deref(),
                    time: Timestamp::from_unix_millis(begin.wrapping_add(step)),
                    decision_id: &decision_id,
                    latency: Duration::from_micros(latency),
                    sample_rate,
                };
                let mut lines = b"a line before it\n".to_vec();
                record.put(&mut lines, &made, &mut last);
                let expected = by_serde(&record, &made);
                prop_assert_eq!(String::from_utf8_lossy(&lines), format!("a line before it\n{expected}"));
            }
        }

        #[test]
        fn a_text_is_plain_where_json_takes_it_as_it_is(text in "[ -~]{0,40}|\\PC{0,40}|[\\x00-\\x7f]{0,40}") {
            let quoted = format!("\"{text}\"");
            prop_assert_eq!(is_plain(&text), serde_json::to_string(&text)? == quoted);
        }
    }
}
