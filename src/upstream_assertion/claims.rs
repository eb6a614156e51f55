//! What an assertion says.

use serde::Serialize;

use super::LIFE;
use crate::identity::Timestamp;

/// What an assertion says of a request, whenever it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claims<'a> {
    /// For which upstream it is.
    pub audience: &'a str,
    /// Whose token it was: a user, a machine, or an organization.
    pub subject: &'a str,
    /// Which type of token it was, as the route policy names it.
    pub token_type: &'a str,
    /// The session, of a person.
    pub session_id: Option<&'a str>,
    /// Who acts in the user's place.
    pub actor: Option<&'a str>,
    /// The OAuth client, of a machine's token that has one.
    pub client_id: Option<&'a str>,
    /// The organization that the route asked about, else the active one.
    pub organization_id: Option<&'a str>,
    /// The user's role in it.
    pub organization_role: Option<&'a str>,
    /// The request's method.
    pub method: &'a str,
    /// The host that the client asked for, without a port.
    pub host: &'a str,
}

/// In this order, so that equal claims are equal bytes.
#[derive(Serialize)]
struct Payload<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: &'a str,
    iat: i64,
    exp: i64,
    jti: &'a str,
    token_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    act: Option<Actor<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    org_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    org_role: Option<&'a str>,
    method: &'a str,
    host: &'a str,
}

/// As in RFC 8693, 4.1.
#[derive(Serialize)]
struct Actor<'a> {
    sub: &'a str,
}

impl Claims<'_> {
    /// The JSON of an assertion that is made at `now` for a decision.
    pub(super) fn payload(&self, issuer: &str, decision_id: &str, now: Timestamp) -> Vec<u8> {
        let issued_at = now.unix_seconds();
        let payload = Payload {
            iss: issuer,
            aud: self.audience,
            sub: self.subject,
            iat: issued_at,
            exp: issued_at.saturating_add_unsigned(LIFE.as_secs()),
            jti: decision_id,
            token_type: self.token_type,
            sid: self.session_id,
            act: self.actor.map(|sub| Actor { sub }),
            client_id: self.client_id,
            org_id: self.organization_id,
            org_role: self.organization_role,
            method: self.method,
            host: self.host,
        };
        let mut json = Vec::with_capacity(512);
        // Texts and numbers into memory: it cannot fail.
        let _ = serde_json::to_writer(&mut json, &payload);
        json
    }

    /// All of it in bytes that nothing else gives: what a cache may know it by.
    pub(super) fn key(&self) -> Vec<u8> {
        // Neither stands in UTF-8, so that no text holds another, nor one that is not there.
        const END: u8 = 0xff;
        const NONE: u8 = 0xfe;
        let Self {
            audience,
            subject,
            token_type,
            session_id,
            actor,
            client_id,
            organization_id,
            organization_role,
            method,
            host,
        } = *self;
        let texts = [
            Some(audience),
            Some(subject),
            Some(token_type),
            session_id,
            actor,
            client_id,
            organization_id,
            organization_role,
            Some(method),
            Some(host),
        ];
        let mut key = Vec::with_capacity(256);
        for text in texts {
            match text {
                Some(text) => key.extend_from_slice(text.as_bytes()),
                None => key.push(NONE),
            }
            key.push(END);
        }
        key
    }
}

#[cfg(test)]
pub(super) const ALICE: Claims<'static> = Claims {
    audience: "orders",
    subject: "user_alice",
    token_type: "session_token",
    session_id: Some("sess_1"),
    actor: None,
    client_id: None,
    organization_id: Some("org_acme"),
    organization_role: Some("org:admin"),
    method: "GET",
    host: "app.example.com",
};

#[cfg(test)]
mod tests {
    use super::*;

    /// Each claim with another value than in [`ALICE`].
    fn others() -> [Claims<'static>; 10] {
        [
            Claims {
                audience: "billing",
                ..ALICE
            },
            Claims {
                subject: "user_bob",
                ..ALICE
            },
            Claims {
                token_type: "api_key",
                ..ALICE
            },
            Claims {
                session_id: None,
                ..ALICE
            },
            Claims {
                actor: Some("user_bob"),
                ..ALICE
            },
            Claims {
                client_id: Some("client_1"),
                ..ALICE
            },
            Claims {
                organization_id: Some("org_other"),
                ..ALICE
            },
            Claims {
                organization_role: None,
                ..ALICE
            },
            Claims {
                method: "POST",
                ..ALICE
            },
            Claims {
                host: "other.example.com",
                ..ALICE
            },
        ]
    }

    #[test]
    fn a_payload_is_the_same_text_each_time() {
        let at = Timestamp::from_unix_millis(1_800_000_000_999);
        let text = String::from_utf8(ALICE.payload("clerk-authz", "dec_1", at)).expect("text");
        assert_eq!(
            text,
            r#"{"iss":"clerk-authz","aud":"orders","sub":"user_alice","iat":1800000000,"exp":1800000030,"jti":"dec_1","token_type":"session_token","sid":"sess_1","org_id":"org_acme","org_role":"org:admin","method":"GET","host":"app.example.com"}"#
        );
        let acted = Claims {
            actor: Some("user_bob"),
            ..ALICE
        };
        let text = String::from_utf8(acted.payload("clerk-authz", "dec_1", at)).expect("text");
        assert!(text.contains(r#""act":{"sub":"user_bob"}"#), "{text}");
    }

    #[test]
    fn each_claim_is_said_and_tells_one_request_from_another() {
        let at = Timestamp::from_unix_seconds(1_800_000_000);
        let said = |claims: &Claims<'_>| claims.payload("clerk-authz", "dec_1", at);
        for other in others() {
            assert_ne!(other.key(), ALICE.key(), "{other:?}");
            assert_ne!(said(&other), said(&ALICE), "{other:?}");
        }
        assert_eq!({ ALICE }.key(), ALICE.key());
    }

    #[test]
    fn no_text_reaches_into_the_next() {
        let first = Claims {
            session_id: Some("a"),
            actor: Some("b"),
            ..ALICE
        };
        let second = Claims {
            session_id: Some("ab"),
            actor: Some(""),
            ..ALICE
        };
        let third = Claims {
            session_id: Some("ab"),
            actor: None,
            ..ALICE
        };
        assert_ne!(first.key(), second.key());
        assert_ne!(second.key(), third.key());
    }
}
