//! Clerk's JSON of what the directory holds, complete by Clerk's schemas.

use serde_json::{Value, json};

use super::directory::{
    Contact, ExternalAccount, Membership, Organization, Permission, Role, Session, SessionStatus,
    Tables, User, is_system, membership_key,
};

/// How long a lock lasts by itself at Clerk, and how many wrong passwords lead to one.
const LOCK_SECONDS: u32 = 3_600;
const ATTEMPTS: u32 = 100;
/// The role that makes organizations.
const CREATOR_ROLE: &str = "org:admin";
/// Clerk's picture of things without one.
const NO_IMAGE: &str = "https://img.clerk.com/static/placeholder.png";
const ROLE_SET: &str = "role_set:default";

pub(super) fn user(user: &User) -> Value {
    let mut object = json!({
        "id": user.id,
        "object": "user",
        "external_id": user.external_id,
        "username": user.username,
        "first_name": user.first_name,
        "last_name": user.last_name,
        "locale": user.locale,
        "image_url": NO_IMAGE,
        "profile_image_url": NO_IMAGE,
        "has_image": false,
        "primary_email_address_id": user.primary_email,
        "primary_phone_number_id": user.primary_phone,
        "primary_web3_wallet_id": null,
        "email_addresses": user.emails.iter().map(email).collect::<Vec<_>>(),
        "phone_numbers": user.phones.iter().map(phone).collect::<Vec<_>>(),
        "web3_wallets": [],
        "passkeys": [],
        "external_accounts": user.external_accounts.iter().map(|it| external_account(it, user)).collect::<Vec<_>>(),
        "saml_accounts": [],
        "enterprise_accounts": [],
        "public_metadata": user.public_metadata,
        "private_metadata": user.private_metadata,
        "unsafe_metadata": user.unsafe_metadata,
    });
    let standing = json!({
        "password_enabled": user.password,
        "two_factor_enabled": user.totp,
        "totp_enabled": user.totp,
        "backup_code_enabled": user.backup_codes,
        "mfa_enabled_at": null,
        "mfa_disabled_at": null,
        "banned": user.banned,
        "locked": user.locked,
        "deprovisioned": user.deprovisioned,
        "lockout_expires_in_seconds": user.locked.then_some(LOCK_SECONDS),
        "verification_attempts_remaining": if user.locked { 0 } else { ATTEMPTS },
        "delete_self_enabled": user.delete_self,
        "create_organization_enabled": user.create_organizations,
        "create_organizations_limit": user.create_organizations_limit,
        "bypass_client_trust": user.bypass_client_trust,
        "legal_accepted_at": user.legal_accepted_at,
        "last_sign_in_at": user.last_sign_in_at,
        "last_active_at": user.last_active_at,
        "created_at": user.stamp.created_at,
        "updated_at": user.stamp.updated_at,
    });
    if let (Value::Object(object), Value::Object(standing)) = (&mut object, standing) {
        object.extend(standing);
    }
    object
}

fn external_account(account: &ExternalAccount, user: &User) -> Value {
    let status = match account.verified {
        true => "verified",
        false => "unverified",
    };
    json!({
        "object": "external_account",
        "id": account.id,
        "provider": account.provider,
        "identification_id": format!("idn_{}", account.id.trim_start_matches("eac_")),
        "provider_user_id": account.provider_user_id,
        "approved_scopes": "openid",
        "email_address": user.email().unwrap_or_default(),
        "first_name": user.first_name.as_deref().unwrap_or_default(),
        "last_name": user.last_name.as_deref().unwrap_or_default(),
        "public_metadata": {},
        "created_at": user.stamp.created_at,
        "updated_at": user.stamp.created_at,
        "verification": {
            "object": "verification_oauth", "status": status, "strategy": account.provider,
            "attempts": null, "expire_at": user.stamp.created_at,
        },
    })
}

fn email(contact: &Contact) -> Value {
    let mut object = identification(contact, "email_address");
    object["email_address"] = json!(contact.value);
    object["matches_sso_connection"] = json!(false);
    object
}

fn phone(contact: &Contact) -> Value {
    let mut object = identification(contact, "phone_number");
    object["phone_number"] = json!(contact.value);
    object["reserved_for_second_factor"] = json!(false);
    object["default_second_factor"] = json!(false);
    object["backup_codes"] = json!(null);
    object
}

fn identification(contact: &Contact, object: &str) -> Value {
    // What the Backend API makes is verified by whoever has the secret key.
    let verification = contact.verified.then(|| {
        json!({
            "object": "verification_admin", "status": "verified", "strategy": "admin",
            "attempts": null, "expire_at": null,
        })
    });
    json!({
        "id": contact.id,
        "object": object,
        "reserved": !contact.verified,
        "verification": verification,
        "linked_to": [],
        "created_at": contact.created_at,
        "updated_at": contact.created_at,
    })
}

pub(super) fn organization(organization: &Organization) -> Value {
    let mut object = json!({
        "object": "organization",
        "id": organization.id,
        "name": organization.name,
        "slug": organization.slug,
        "image_url": NO_IMAGE,
        "has_image": false,
        "max_allowed_memberships": organization.max_allowed_memberships,
        "admin_delete_enabled": organization.admin_delete,
        "public_metadata": organization.public_metadata,
        "private_metadata": organization.private_metadata,
        "role_set_key": ROLE_SET,
        "created_at": organization.stamp.created_at,
        "updated_at": organization.stamp.updated_at,
    });
    if let Some(creator) = &organization.created_by {
        object["created_by"] = json!(creator);
    }
    object
}

/// With the number of members, which Clerk says only when asked.
pub(super) fn organization_with_count(tables: &Tables, it: &Organization) -> Value {
    let mut object = organization(it);
    object["members_count"] = json!(members_count(tables, it));
    object
}

pub(super) fn members_count(tables: &Tables, organization: &Organization) -> usize {
    let prefix = membership_key(&organization.id, "");
    tables.memberships_in(&prefix).count()
}

/// A membership whose user or organization has just been deleted has none of it.
pub(super) fn membership(tables: &Tables, membership: &Membership) -> Value {
    let role = tables.role(&membership.role);
    let its_organization = tables.organizations.get(&membership.organization);
    let its_user = tables.users.get(&membership.user);
    let permissions = its_organization.map(|o| tables.permissions_in(o, &membership.role));
    let public_user_data = its_user.map(|user| {
        json!({
            "user_id": user.id,
            "first_name": user.first_name,
            "last_name": user.last_name,
            "profile_image_url": NO_IMAGE,
            "image_url": NO_IMAGE,
            "has_image": false,
            "identifier": user.email().or(user.phone()).or(user.username.as_deref()),
            "username": user.username,
            "banned": user.banned,
            "deprovisioned": false,
        })
    });
    json!({
        "object": "organization_membership",
        "id": membership.id,
        "role": membership.role,
        "role_name": role.map_or("", |role| &*role.name),
        "permissions": permissions.unwrap_or_default(),
        "public_metadata": membership.public_metadata,
        "private_metadata": membership.private_metadata,
        "organization": its_organization.map(organization),
        "public_user_data": public_user_data,
        "created_at": membership.stamp.created_at,
        "updated_at": membership.stamp.updated_at,
    })
}

pub(super) fn role(tables: &Tables, role: &Role) -> Value {
    let permissions = role.permissions.iter();
    let permissions = permissions.filter_map(|key| tables.permission(key));
    json!({
        "object": "role",
        "id": role.id,
        "key": role.key,
        "name": role.name,
        "description": role.description,
        "is_creator_eligible": role.key == CREATOR_ROLE,
        "permissions": permissions.map(permission).collect::<Vec<_>>(),
        "created_at": role.stamp.created_at,
        "updated_at": role.stamp.updated_at,
    })
}

pub(super) fn permission(permission: &Permission) -> Value {
    json!({
        "object": "permission",
        "id": permission.id,
        "key": permission.key,
        "name": permission.name,
        "description": permission.description,
        "type": if is_system(&permission.key) { "system" } else { "user" },
        "created_at": permission.stamp.created_at,
        "updated_at": permission.stamp.updated_at,
    })
}

pub(super) fn session(session: &Session, now: i64) -> Value {
    let status = session.status_at(now);
    let mut object = json!({
        "object": "session",
        "id": session.id,
        "user_id": session.user,
        "client_id": session.client,
        "actor": null,
        "status": status.name(),
        "last_active_organization_id": session.organization,
        "last_active_at": session.last_active_at,
        "expire_at": session.expire_at,
        "abandon_at": session.abandon_at,
        "created_at": session.stamp.created_at,
        "updated_at": session.stamp.updated_at,
    });
    if status == SessionStatus::Pending {
        object["tasks"] = json!([{ "key": "choose-organization" }]);
    }
    object
}
