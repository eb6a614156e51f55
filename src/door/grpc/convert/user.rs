//! `SyncUser` and `GetUser`: proto ↔ domain.

use std::time::Duration;

use super::{custom_claims_message, timestamp};
use crate::{
    door::grpc::{proto, status::Violation},
    identity::{CustomClaims, UserId},
    mirror::{EmailAddress, Seen, User, UserKey},
    sync::{SyncOutcome, Synced},
};

/// The longest external id or address in bytes.
const MAX_KEY_BYTES: usize = 320;

/// How a user is found, before it borrows.
pub(in crate::door::grpc) enum AskedKey<'a> {
    Id(UserId),
    ExternalId(&'a str),
    Email(&'a str),
}

impl AskedKey<'_> {
    pub(in crate::door::grpc) fn as_key(&self) -> UserKey<'_> {
        match self {
            Self::Id(id) => UserKey::Id(id),
            Self::ExternalId(id) => UserKey::ExternalId(id),
            Self::Email(address) => UserKey::Email(address),
        }
    }
}

pub(in crate::door::grpc) fn user_id(text: &str) -> Result<UserId, Violation> {
    text.parse().map_err(|invalid: crate::identity::InvalidId| {
        Violation::new("user_id", invalid.to_string())
    })
}

pub(in crate::door::grpc) fn user_key(
    request: &proto::GetUserRequest,
) -> Result<AskedKey<'_>, Violation> {
    use proto::get_user_request::Key;
    let checked = |field: &str, text: &str| match text.len() {
        0 => Err(Violation::new(field, "is empty")),
        1..=MAX_KEY_BYTES => Ok(()),
        bytes => {
            let description = format!("is {bytes} bytes; at most {MAX_KEY_BYTES}");
            Err(Violation::new(field, description))
        }
    };
    match &request.key {
        None => {
            let description = "is not set; set user_id, external_id or email";
            Err(Violation::new("key", description))
        }
        Some(Key::UserId(id)) => user_id(id).map(AskedKey::Id),
        Some(Key::ExternalId(id)) => checked("external_id", id).map(|()| AskedKey::ExternalId(id)),
        Some(Key::Email(email)) => checked("email", email).map(|()| AskedKey::Email(email)),
    }
}

pub(in crate::door::grpc) fn max_staleness(
    asked: Option<prost_types::Duration>,
) -> Result<Duration, Violation> {
    asked.map_or(Ok(Duration::ZERO), |age| {
        Duration::try_from(age)
            .map_err(|_| Violation::new("max_staleness", "is negative; expected zero or more"))
    })
}

pub(in crate::door::grpc) fn synced(synced: &Synced) -> proto::SyncUserResponse {
    let Synced { user, outcome } = synced;
    proto::SyncUserResponse {
        source_updated_at: user.as_ref().map(|seen| timestamp(seen.value.updated_at)),
        user: user.as_ref().map(self::user),
        outcome: match outcome {
            SyncOutcome::Created => proto::SyncOutcome::Created,
            SyncOutcome::Updated => proto::SyncOutcome::Updated,
            SyncOutcome::Unchanged => proto::SyncOutcome::Unchanged,
            SyncOutcome::Deleted => proto::SyncOutcome::Deleted,
        }
        .into(),
    }
}

pub(in crate::door::grpc) fn user(seen: &Seen<User>) -> proto::User {
    let User {
        id,
        external_id,
        username,
        first_name,
        last_name,
        image_url,
        emails,
        banned,
        locked,
        deprovisioned,
        public_metadata,
        created_at,
        updated_at,
        last_sign_in_at,
        source: _, // private metadata is in it
    } = &seen.value;
    let text = |text: &Option<Box<str>>| text.as_deref().unwrap_or_default().to_owned();
    proto::User {
        id: id.as_str().to_owned(),
        external_id: text(external_id),
        username: text(username),
        first_name: text(first_name),
        last_name: text(last_name),
        image_url: text(image_url),
        email_addresses: emails.iter().map(email).collect(),
        banned: *banned,
        locked: *locked,
        deprovisioned: *deprovisioned,
        public_metadata: custom_claims_message(&CustomClaims::from_object_text(
            public_metadata.to_string(),
        )),
        created_at: Some(timestamp(*created_at)),
        updated_at: Some(timestamp(*updated_at)),
        last_sign_in_at: last_sign_in_at.map(timestamp),
        seen_at: seen.seen_at.map(timestamp),
    }
}

fn email(email: &EmailAddress) -> proto::EmailAddress {
    let EmailAddress {
        address,
        verified,
        primary,
    } = email;
    proto::EmailAddress {
        address: address.to_string(),
        verified: *verified,
        primary: *primary,
    }
}
