//! Clerk's JSON as far as it is used. Unknown members are ignored; a member of a wrong type is an
//! error that names the member and holds nothing of the body.

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::{
    identity::{
        CustomClaims, MachineSubject, MachineType, OrganizationId, OrganizationSlug, SessionId,
        Texts, Timestamp, UserId,
    },
    mirror::{
        MachineAnswer, MachineRecord, Membership, OrganizationRecord, SessionAnswer, Standing,
    },
};

/// What may be asked for.
pub(super) trait Asked: DeserializeOwned {
    /// Whether it says that there is no such thing.
    fn is_nothing(&self) -> bool;
}

impl<T> Asked for Page<T>
where
    Self: DeserializeOwned,
{
    fn is_nothing(&self) -> bool {
        self.data.is_empty()
    }
}

/// An object that is kept whole.
impl Asked for Box<RawValue> {
    fn is_nothing(&self) -> bool {
        false
    }
}

impl Asked for ClerkOrganization {
    fn is_nothing(&self) -> bool {
        false
    }
}

impl Asked for ClerkMachineToken {
    fn is_nothing(&self) -> bool {
        false
    }
}

impl Asked for ClerkSession {
    fn is_nothing(&self) -> bool {
        false
    }
}

impl Asked for ClerkHandshake {
    fn is_nothing(&self) -> bool {
        self.directives.is_empty()
    }
}

/// What is kept of a browser's handshake. Not in Clerk's OpenAPI file; by its SDK
/// (`@clerk/backend`, `api/endpoints/ClientApi.ts`).
#[derive(Deserialize)]
pub(super) struct ClerkHandshake {
    pub(super) directives: Vec<Box<str>>,
}

/// `Session`.
#[derive(Deserialize)]
pub(super) struct ClerkSession {
    id: Box<str>,
    user_id: Box<str>,
    status: Box<str>,
}

/// What verifying an opaque token answers: of an M2M token, an OAuth access token or an API key.
#[derive(Deserialize)]
pub(super) struct ClerkMachineToken {
    /// Only of OAuth access tokens, and only `false`: then nothing else is there.
    active: Option<bool>,
    object: Option<Box<str>>,
    id: Option<Box<str>>,
    subject: Option<Box<str>>,
    client_id: Option<Box<str>>,
    scopes: Option<Vec<Box<str>>>,
    claims: Option<Box<RawValue>>,
    revoked: Option<bool>,
    expired: Option<bool>,
    /// Unix milliseconds, like all times here.
    expiration: Option<f64>,
    created_at: Option<f64>,
}

/// A list.
#[derive(Deserialize)]
pub(super) struct Page<T> {
    pub data: Vec<T>,
}

/// `OrganizationMembership`.
#[derive(Deserialize)]
pub(super) struct ClerkMembership {
    role: Box<str>,
    permissions: Option<Vec<Box<str>>>,
    organization: ClerkOrganization,
    public_user_data: ClerkPublicUserData,
    updated_at: i64,
}

/// `OrganizationMembershipPublicUserData`.
#[derive(Deserialize)]
struct ClerkPublicUserData {
    user_id: Box<str>,
    banned: Option<bool>,
    deprovisioned: Option<bool>,
}

/// `Organization`.
#[derive(Deserialize)]
pub(super) struct ClerkOrganization {
    id: Box<str>,
    slug: Option<Box<str>>,
}

/// `Role`.
#[derive(Deserialize)]
pub(super) struct ClerkRole {
    key: Box<str>,
    permissions: Option<Vec<ClerkPermission>>,
}

/// `Permission`.
#[derive(Deserialize)]
struct ClerkPermission {
    key: Box<str>,
}

/// `ClerkErrors`: what Clerk answers in place of what was asked for.
#[derive(Deserialize)]
pub(super) struct ClerkErrors {
    errors: Vec<ClerkError>,
    clerk_trace_id: Option<Box<str>>,
}

#[derive(Deserialize)]
struct ClerkError {
    code: Box<str>,
}

/// Why an answer cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// Not JSON, or cut off: what a broken proxy sends.
    NotJson,
    /// JSON that is not what was asked for; says which member, never its value.
    Member(String),
}

/// Reads what was asked for.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Unreadable> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        if !error.inner().is_data() {
            return Unreadable::NotJson;
        }
        let member = error.path().to_string();
        // serde's text would quote the value, but for a member that is not there.
        let text = error.inner().to_string();
        let missing = text
            .strip_prefix("missing field `")
            .and_then(|rest| rest.split_once('`'));
        Unreadable::Member(match missing {
            Some((field, _)) if member == "." => format!("{field} is missing"),
            Some((field, _)) => format!("{member}.{field} is missing"),
            None if member == "." => "it is of another type".to_owned(),
            None => format!("{member} is of another type"),
        })
    })?;
    json.end().map_err(|_| Unreadable::NotJson)?;
    Ok(value)
}

impl ClerkMachineToken {
    /// What it says of a token of this type. Whatever the status of the answer, a token that is
    /// revoked, expired or not active is not good, and neither is one of which that is not said.
    pub(super) fn of(self, machine_type: MachineType) -> Result<MachineAnswer, Unreadable> {
        if self.active == Some(false) {
            return Ok(MachineAnswer::Expired);
        }
        let expected = match machine_type {
            MachineType::M2m => "machine_to_machine_token",
            MachineType::Oauth => "clerk_idp_oauth_access_token",
            MachineType::ApiKey => "api_key",
        };
        if self.object.as_deref() != Some(expected) {
            return Err(somebody_else("object"));
        }
        match (
            absent(self.revoked, "revoked")?,
            absent(self.expired, "expired")?,
        ) {
            (true, _) => return Ok(MachineAnswer::Revoked),
            (false, true) => return Ok(MachineAnswer::Expired),
            (false, false) => {}
        }
        let subject = absent(self.subject, "subject")?;
        let subject = MachineSubject::of(machine_type, &subject)
            .ok_or_else(|| Unreadable::Member("subject has another form".to_owned()))?;
        Ok(MachineAnswer::Good(Box::new(MachineRecord {
            id: absent(self.id, "id")?,
            subject,
            client_id: match machine_type {
                MachineType::Oauth => self.client_id.filter(|id| !id.is_empty()),
                MachineType::M2m | MachineType::ApiKey => None,
            },
            scopes: self.scopes.iter().flatten().collect(),
            claims: self.claims.as_deref().map(claims).transpose()?.flatten(),
            created_at: time(absent(self.created_at, "created_at")?, "created_at")?,
            expires_at: self
                .expiration
                .map(|millis| time(millis, "expiration"))
                .transpose()?,
        })))
    }
}

fn absent<T>(member: Option<T>, name: &str) -> Result<T, Unreadable> {
    member.ok_or_else(|| Unreadable::Member(format!("{name} is absent")))
}

/// Unix milliseconds from 1970 to 9999.
fn time(millis: f64, name: &str) -> Result<Timestamp, Unreadable> {
    const LAST: f64 = 253_402_300_799_000.0;
    if !(0.0..=LAST).contains(&millis) {
        return Err(Unreadable::Member(format!("{name} is no time")));
    }
    Ok(Timestamp::from_unix_millis(millis as i64))
}

/// An object; an empty one says nothing, as an absent one does.
fn claims(text: &RawValue) -> Result<Option<CustomClaims>, Unreadable> {
    let members: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text.get())
        .map_err(|_| Unreadable::Member("claims is no object".to_owned()))?;
    let text = || CustomClaims::from_object_text(text.get().to_owned());
    Ok((!members.is_empty()).then(text))
}

impl ClerkSession {
    /// As the answer to whether `session` is live; an error when it is about another. A status that
    /// is not known is not a live one.
    pub(super) fn of(self, session: &SessionId) -> Result<SessionAnswer, Unreadable> {
        if *self.id != *session.as_str() {
            return Err(somebody_else("id"));
        }
        if !matches!(&*self.status, "active" | "pending") {
            return Ok(SessionAnswer::Over);
        }
        let user_id = UserId::try_from(self.user_id)
            .map_err(|_| Unreadable::Member("user_id is not a user's id".to_owned()))?;
        Ok(SessionAnswer::Live { user_id })
    }
}

impl ClerkMembership {
    /// As the answer to who `user` is in `organization`; an error when it is about somebody else.
    pub(super) fn of(
        self,
        organization: &OrganizationId,
        user: &UserId,
    ) -> Result<Membership, Unreadable> {
        if *self.organization.id != *organization.as_str() {
            return Err(somebody_else("data[0].organization.id"));
        }
        if *self.public_user_data.user_id != *user.as_str() {
            return Err(somebody_else("data[0].public_user_data.user_id"));
        }
        let role = with_one_prefix(&self.role)
            .ok_or_else(|| Unreadable::Member("data[0].role is empty".to_owned()))?;
        let standing = match &self.public_user_data {
            data if data.banned == Some(true) => Standing::Banned,
            data if data.deprovisioned == Some(true) => Standing::Deprovisioned,
            _ => Standing::Good,
        };
        Ok(Membership {
            organization: OrganizationRecord {
                id: organization.clone(),
                slug: self.organization.slug(),
            },
            user_id: user.clone(),
            role,
            permissions: self
                .permissions
                .iter()
                .flatten()
                .filter_map(|permission| with_one_prefix(permission))
                .collect(),
            standing,
            updated_at: Timestamp::from_unix_millis(self.updated_at),
        })
    }
}

impl ClerkOrganization {
    /// As the answer to who has `slug` now; an error when it is another one, such as one whose id
    /// is what was taken for a slug.
    pub(super) fn with_slug(
        self,
        slug: &OrganizationSlug,
    ) -> Result<OrganizationRecord, Unreadable> {
        if self.slug.as_deref() != Some(slug.as_str()) {
            return Err(somebody_else("slug"));
        }
        let id = OrganizationId::try_from(self.id)
            .map_err(|_| Unreadable::Member("id is not an organization's id".to_owned()))?;
        Ok(OrganizationRecord {
            id,
            slug: Some(slug.clone()),
        })
    }

    /// A slug that is none by our rules leads nowhere, so there is none.
    fn slug(&self) -> Option<OrganizationSlug> {
        self.slug.as_ref()?.parse().ok()
    }
}

impl ClerkRole {
    pub(super) fn has_key(&self, role: &str) -> bool {
        with_one_prefix(&self.key).as_deref() == Some(role)
    }

    pub(super) fn permissions(&self) -> Texts {
        self.permissions
            .iter()
            .flatten()
            .filter_map(|permission| with_one_prefix(&permission.key))
            .collect()
    }
}

impl ClerkErrors {
    /// Whether the first error that has `test` is there.
    pub(super) fn has(&self, test: impl Fn(&str) -> bool) -> bool {
        self.errors.iter().any(|error| test(&error.code))
    }

    /// The code of the first error, where it looks like one: nothing else of a body is shown.
    pub(super) fn code(&self) -> Option<&str> {
        let is_code = |text: &&str| {
            (1..=64).contains(&text.len())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        self.errors
            .first()
            .map(|error| &*error.code)
            .filter(is_code)
    }

    pub(super) fn trace_id(&self) -> Option<&str> {
        self.clerk_trace_id.as_deref()
    }
}

pub(super) fn somebody_else(member: &str) -> Unreadable {
    Unreadable::Member(format!("{member} is not what was asked about"))
}

/// With exactly one `org:`; `None` when there is nothing behind it.
pub(super) fn with_one_prefix(key: &str) -> Option<Box<str>> {
    let name = key.trim_start_matches("org:");
    (!name.is_empty()).then(|| format!("org:{name}").into())
}

/// The part of a key behind `org:`.
pub(super) fn bare(key: &str) -> &str {
    key.strip_prefix("org:").unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn membership(body: &str) -> Result<Membership, Unreadable> {
        let page: Page<ClerkMembership> = read(body.as_bytes())?;
        let first = page.data.into_iter().next().expect("one");
        first.of(
            &"org_1".parse().expect("id"),
            &"user_1".parse().expect("id"),
        )
    }

    const GOOD: &str = r#"{"data":[{"id":"orgmem_1","role":"org:org:admin","permissions":["docs:read",
        "org:sys_memberships:read"],"organization":{"id":"org_1","slug":null,"new":[1]},
        "public_user_data":{"user_id":"user_1","banned":null},"updated_at":7,"more":{}}],"total_count":1}"#;

    #[test]
    fn what_is_used_is_read_and_the_rest_ignored() {
        let found = membership(GOOD).expect("good");

        assert_eq!(&*found.role, "org:admin");
        assert!(found.permissions.contains("org:docs:read"));
        assert!(found.permissions.contains("org:sys_memberships:read"));
        assert_eq!(found.standing, Standing::Good);
        assert_eq!(found.organization.slug, None);
        assert_eq!(found.updated_at, Timestamp::from_unix_millis(7));
    }

    #[test]
    fn what_is_wrong_is_named_and_never_quoted() {
        for (from, to, expected) in [
            (
                r#""org:org:admin""#,
                "12345",
                "data[0].role is of another type",
            ),
            (
                r#""docs:read""#,
                "12345",
                "data[0].permissions[0] is of another type",
            ),
            (
                r#"{"id":"org_1","#,
                "{",
                "data[0].organization.id is missing",
            ),
            (r#"{"data":"#, r#"{"list":"#, "data is missing"),
            (
                r#""banned":null"#,
                r#""banned":"12345""#,
                "data[0].public_user_data.banned is of another type",
            ),
            (
                r#""org_1""#,
                r#""org_12345""#,
                "data[0].organization.id is not what was asked about",
            ),
            (
                r#""user_1""#,
                r#""user_12345""#,
                "data[0].public_user_data.user_id is not what was asked about",
            ),
            (r#""org:org:admin""#, r#""org:""#, "data[0].role is empty"),
            (
                r#""updated_at":7"#,
                r#""updated_at":7.12345"#,
                "data[0].updated_at is of another type",
            ),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let error = membership(&GOOD.replace(from, to)).expect_err(expected);
            assert_eq!(error, Unreadable::Member(expected.to_owned()));
        }
        for body in ["", "<html>", "{\"data\":[", "{\"data\":[]} x"] {
            let read = read::<Page<ClerkRole>>(body.as_bytes());
            assert_eq!(read.err(), Some(Unreadable::NotJson), "{body}");
        }
    }

    #[test]
    fn who_may_not_act_is_told_apart() {
        for (member, standing) in [
            ("banned", Standing::Banned),
            ("deprovisioned", Standing::Deprovisioned),
        ] {
            let body = GOOD.replace(r#""banned":null"#, &format!("\"{member}\":true"));
            assert_eq!(membership(&body).expect("good").standing, standing);
        }
    }

    const TOKEN: &str = r#"{"object":"api_key","id":"ak_1","type":"api_key","subject":"org_1",
        "name":"n","claims":{"team":"ops"},"scopes":["read","write"],"revoked":false,
        "revocation_reason":null,"expired":false,"expiration":1700000060000,"created_by":null,
        "last_used_at":null,"created_at":1700000000000,"updated_at":1700000000000,"more":{}}"#;

    fn machine_token(body: &str, machine_type: MachineType) -> Result<MachineAnswer, Unreadable> {
        read::<ClerkMachineToken>(body.as_bytes())?.of(machine_type)
    }

    #[test]
    fn an_opaque_token_is_good_only_where_everything_says_so() {
        let good = machine_token(TOKEN, MachineType::ApiKey);
        let Ok(MachineAnswer::Good(record)) = good else {
            panic!("{good:?}");
        };
        assert_eq!((&*record.id, record.subject.as_str()), ("ak_1", "org_1"));
        assert_eq!(record.scopes.iter().collect::<Vec<_>>(), ["read", "write"]);
        assert_eq!(record.created_at.unix_seconds(), 1_700_000_000);
        let expires_at = record.expires_at.map(Timestamp::unix_seconds);
        assert_eq!(expires_at, Some(1_700_000_060));
        assert_eq!(record.client_id, None);
        let claims = record.claims.expect("claims");
        assert_eq!(claims.as_json(), r#"{"team":"ops"}"#);

        for (from, to, expected) in [
            (
                r#""revoked":false"#,
                r#""revoked":true"#,
                MachineAnswer::Revoked,
            ),
            (
                r#""expired":false"#,
                r#""expired":true"#,
                MachineAnswer::Expired,
            ),
            (r#""more":{}"#, r#""active":false"#, MachineAnswer::Expired),
        ] {
            assert!(TOKEN.contains(from), "{from}");
            let said = machine_token(&TOKEN.replace(from, to), MachineType::ApiKey);
            assert_eq!(said, Ok(expected), "{to}");
        }
        let inactive = machine_token(r#"{"active":false}"#, MachineType::Oauth);
        assert_eq!(inactive, Ok(MachineAnswer::Expired));
    }

    /// An answer of which something is missing is no answer: neither a yes nor a no.
    #[test]
    fn an_opaque_token_of_which_not_all_is_said_cannot_be_told() {
        for (from, to) in [
            (r#""revoked":false,"#, ""),
            (r#""revoked":false"#, r#""revoked":null"#),
            (r#""revoked":false"#, r#""revoked":"false""#),
            (r#""revoked":false"#, r#""revoked":false,"revoked":true"#),
            (r#""expired":false,"#, ""),
            (r#""more":{}"#, r#""active":"no""#),
            (r#""object":"api_key","#, ""),
            (
                r#""object":"api_key""#,
                r#""object":"machine_to_machine_token""#,
            ),
            (r#""org_1""#, r#""sess_1""#),
            (r#""id":"ak_1","#, ""),
            (r#""created_at":1700000000000"#, r#""created_at":-1"#),
            ("1700000060000", "1e300"),
            ("1700000060000", r#""never""#),
            (r#"{"team":"ops"}"#, r#"["ops"]"#),
            (r#"["read","write"]"#, r#""read write""#),
        ] {
            assert!(TOKEN.contains(from), "{from}");
            let said = machine_token(&TOKEN.replace(from, to), MachineType::ApiKey);
            assert!(said.is_err(), "{from} -> {to}: {said:?}");
        }
        let as_another = machine_token(TOKEN, MachineType::M2m);
        assert!(as_another.is_err(), "{as_another:?}");
        let never = TOKEN.replace("1700000060000", "null");
        let never = machine_token(&never, MachineType::ApiKey);
        assert!(
            matches!(&never, Ok(MachineAnswer::Good(record)) if record.expires_at.is_none()),
            "{never:?}"
        );
    }
}
