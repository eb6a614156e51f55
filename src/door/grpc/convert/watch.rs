//! `WatchUsers`: domain → proto.

use super::{timestamp, user};
use crate::{
    door::grpc::proto::{self, watch_users_response::Change},
    mirror::{Membership, MirroredMembership, Seen},
    sync::{WatchChange, WatchMessage},
};

pub(in crate::door::grpc) fn watch_message(message: &WatchMessage) -> proto::WatchUsersResponse {
    let WatchMessage {
        change,
        resume_token,
    } = message;
    let change = match change {
        WatchChange::User(seen) => Change::User(user(seen)),
        WatchChange::UserDeleted(id) => Change::UserDeleted(proto::UserDeleted {
            user_id: id.as_str().to_owned(),
        }),
        WatchChange::Membership(seen) => Change::Membership(membership(seen)),
        WatchChange::MembershipDeleted(organization, user) => {
            Change::MembershipDeleted(proto::MembershipDeleted {
                organization_id: organization.as_str().to_owned(),
                user_id: user.as_str().to_owned(),
            })
        }
        WatchChange::SnapshotComplete => Change::SnapshotComplete(proto::SnapshotComplete {}),
        WatchChange::Heartbeat => Change::Heartbeat(proto::Heartbeat {}),
    };
    proto::WatchUsersResponse {
        resume_token: resume_token.clone(),
        change: Some(change),
    }
}

fn membership(seen: &Seen<MirroredMembership>) -> proto::Membership {
    let MirroredMembership {
        membership,
        created_at,
        source: _, // private metadata is in it
    } = &seen.value;
    let Membership {
        organization,
        user_id,
        role,
        permissions: _, // they change without it
        standing: _,    // said of the user
        updated_at,
    } = membership;
    proto::Membership {
        organization_id: organization.id.as_str().to_owned(),
        user_id: user_id.as_str().to_owned(),
        role: role.to_string(),
        created_at: Some(timestamp(*created_at)),
        updated_at: Some(timestamp(*updated_at)),
        seen_at: seen.seen_at.map(timestamp),
    }
}
