//! What Clerk tells about: the types of its webhook schema file of 2025-04-15, and others.

use std::fmt;

macro_rules! event_types {
    ($($variant:ident = $name:literal,)*) => {
        /// The type of an event.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum EventType {
            $(
                #[doc = concat!("`", $name, "`.")]
                $variant,
            )*
            /// One that Clerk has made since: visible ASCII, 1 to 255 bytes. Not a fault: whoever
            /// refuses it is sent it again and again.
            Unknown(String),
        }

        impl EventType {
            /// All that we know.
            pub const KNOWN: &[Self] = &[$(Self::$variant,)*];

            /// Clerk's name of it.
            pub fn name(&self) -> &str {
                match self {
                    $(Self::$variant => $name,)*
                    Self::Unknown(name) => name,
                }
            }

            /// `None` for a text that names no type.
            pub(super) fn from_text(text: String) -> Option<Self> {
                match &*text {
                    $($name => Some(Self::$variant),)*
                    _ if !is_name(&text) => None,
                    _ => Some(Self::Unknown(text)),
                }
            }
        }
    };
}

event_types! {
    EmailCreated = "email.created",
    OrganizationCreated = "organization.created",
    OrganizationUpdated = "organization.updated",
    OrganizationDeleted = "organization.deleted",
    OrganizationDomainCreated = "organizationDomain.created",
    OrganizationDomainUpdated = "organizationDomain.updated",
    OrganizationDomainDeleted = "organizationDomain.deleted",
    OrganizationInvitationCreated = "organizationInvitation.created",
    OrganizationInvitationAccepted = "organizationInvitation.accepted",
    OrganizationInvitationRevoked = "organizationInvitation.revoked",
    OrganizationMembershipCreated = "organizationMembership.created",
    OrganizationMembershipUpdated = "organizationMembership.updated",
    OrganizationMembershipDeleted = "organizationMembership.deleted",
    PaymentAttemptCreated = "paymentAttempt.created",
    PaymentAttemptUpdated = "paymentAttempt.updated",
    PermissionCreated = "permission.created",
    PermissionUpdated = "permission.updated",
    PermissionDeleted = "permission.deleted",
    RoleCreated = "role.created",
    RoleUpdated = "role.updated",
    RoleDeleted = "role.deleted",
    SessionCreated = "session.created",
    SessionPending = "session.pending",
    SessionEnded = "session.ended",
    SessionRemoved = "session.removed",
    SessionRevoked = "session.revoked",
    SmsCreated = "sms.created",
    SubscriptionCreated = "subscription.created",
    SubscriptionUpdated = "subscription.updated",
    SubscriptionActive = "subscription.active",
    SubscriptionPastDue = "subscription.pastDue",
    SubscriptionItemAbandoned = "subscriptionItem.abandoned",
    SubscriptionItemActive = "subscriptionItem.active",
    SubscriptionItemCanceled = "subscriptionItem.canceled",
    SubscriptionItemEnded = "subscriptionItem.ended",
    SubscriptionItemFreeTrialEnding = "subscriptionItem.freeTrialEnding",
    SubscriptionItemIncomplete = "subscriptionItem.incomplete",
    SubscriptionItemPastDue = "subscriptionItem.pastDue",
    SubscriptionItemUpcoming = "subscriptionItem.upcoming",
    SubscriptionItemUpdated = "subscriptionItem.updated",
    UserCreated = "user.created",
    UserUpdated = "user.updated",
    UserDeleted = "user.deleted",
    WaitlistEntryCreated = "waitlistEntry.created",
    WaitlistEntryUpdated = "waitlistEntry.updated",
}

/// The longest name that is kept and counted.
const MAX_NAME_BYTES: usize = 255;

fn is_name(text: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

impl EventType {
    /// Whether its data may be kept. Of e-mails and text messages it may not: they hold one-time
    /// codes in clear. Of a type that we do not know it may not either, since it may hold anything.
    pub fn keeps_data(&self) -> bool {
        !matches!(
            self,
            Self::EmailCreated | Self::SmsCreated | Self::Unknown(_)
        )
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
