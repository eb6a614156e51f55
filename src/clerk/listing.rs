//! Everything at Clerk, for reconciliation: lists page by page, and single entities, whole.

use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    api::{BackendApi, find_user, unusable},
    coalesce::{self, Errand},
    gate::Endpoint,
    mirrored,
    model::{self, Asked, Page, Unreadable},
};
use crate::{
    identity::{OrganizationId, UserId},
    mirror::{
        Answered, Asking, DirectoryError, Entity, EntityKind, ListPage, Listing, PageStart,
        WholeEntity,
    },
};

/// The oldest first, so that what is made meanwhile comes at the end.
const ORDER: (&str, &str) = ("order_by", "+created_at");

/// A list that says how many there are in all.
#[derive(Deserialize)]
struct CountedPage {
    data: Vec<Box<RawValue>>,
    total_count: Option<u64>,
}

/// `TotalCount`.
#[derive(Deserialize)]
struct TotalCount {
    total_count: u64,
}

impl Asked for CountedPage {
    fn is_nothing(&self) -> bool {
        self.data.is_empty()
    }
}

/// The list of users is an array.
impl Asked for Vec<Box<RawValue>> {
    fn is_nothing(&self) -> bool {
        self.is_empty()
    }
}

impl Asked for TotalCount {
    fn is_nothing(&self) -> bool {
        false
    }
}

impl Listing for BackendApi {
    fn page<'a>(
        &'a self,
        kind: EntityKind,
        from: PageStart<'a>,
        patience: Duration,
    ) -> Asking<'a, Option<ListPage>> {
        Box::pin(coalesce::alone(patience, async move |errand| match kind {
            EntityKind::User => self.users(from, &errand).await,
            EntityKind::Organization => {
                let at = (Endpoint::Organizations, "organizations");
                self.counted(kind, at, from, &errand).await
            }
            EntityKind::Membership => {
                let at = (Endpoint::Memberships, "organization_memberships");
                self.counted(kind, at, from, &errand).await
            }
        }))
    }

    fn count_users(&self, patience: Duration) -> Asking<'_, u64> {
        Box::pin(coalesce::alone(patience, async move |errand| {
            let url = self.sender.url(&["users", "count"], &[]);
            let Answered { value, as_of } = self
                .sender
                .get::<TotalCount>(Endpoint::UsersCount, self.share, url, &errand)
                .await?;
            let value = value.ok_or_else(|| no_list("number of users"))?.total_count;
            Ok(Answered { value, as_of })
        }))
    }

    fn entity<'a>(
        &'a self,
        entity: &'a Entity,
        patience: Duration,
    ) -> Asking<'a, Option<WholeEntity>> {
        Box::pin(coalesce::alone(
            patience,
            async move |errand| match entity {
                Entity::User(id) => {
                    let found = find_user(&self.sender, self.share, id, &errand).await?;
                    Ok(Answered {
                        value: found.value.map(|user| WholeEntity::User(Box::new(user))),
                        as_of: found.as_of,
                    })
                }
                Entity::Organization(id) => self.organization(id, &errand).await,
                Entity::Membership(organization, user) => {
                    self.membership_of(organization, user, &errand).await
                }
            },
        ))
    }
}

impl BackendApi {
    async fn users(
        &self,
        from: PageStart<'_>,
        errand: &Errand,
    ) -> Result<Answered<Option<ListPage>>, DirectoryError> {
        let limit = WholeEntity::PAGE.to_string();
        let mut parameters = vec![ORDER, ("limit", &*limit)];
        let offset;
        match from {
            PageStart::Behind(Some(user)) => parameters.push(("starting_after", user.as_str())),
            PageStart::Behind(None) => {}
            PageStart::Offset(from) => {
                offset = from.to_string();
                parameters.push(("offset", &offset));
            }
        }
        let url = self.sender.url(&["users"], &parameters);
        let asked = self
            .sender
            .get::<Vec<Box<RawValue>>>(Endpoint::Users, self.share, url, errand)
            .await;
        let Answered { value, as_of } = match asked {
            // Whatever Clerk says of a user that it does not know: it is not said whether the list
            // has an end there.
            Err(DirectoryError::Rejected { .. }) if matches!(from, PageStart::Behind(Some(_))) => {
                let as_of = self.sender.now();
                return Ok(Answered { value: None, as_of });
            }
            asked => asked?,
        };
        let value = match value {
            Some(sources) => Some(page(EntityKind::User, sources, None)?),
            None if matches!(from, PageStart::Behind(Some(_))) => None,
            None => return Err(no_list("list of users")),
        };
        Ok(Answered { value, as_of })
    }

    async fn counted(
        &self,
        kind: EntityKind,
        (endpoint, segment): (Endpoint, &str),
        from: PageStart<'_>,
        errand: &Errand,
    ) -> Result<Answered<Option<ListPage>>, DirectoryError> {
        let PageStart::Offset(from) = from else {
            return Err(no_list("place to go on from in this list"));
        };
        let (limit, offset) = (WholeEntity::PAGE.to_string(), from.to_string());
        let parameters = [ORDER, ("limit", &limit), ("offset", &offset)];
        let url = self.sender.url(&[segment], &parameters);
        let Answered { value, as_of } = self
            .sender
            .get::<CountedPage>(endpoint, self.share, url, errand)
            .await?;
        let CountedPage { data, total_count } = value.ok_or_else(|| no_list("such list"))?;
        let value = Some(page(kind, data, total_count)?);
        Ok(Answered { value, as_of })
    }

    async fn organization(
        &self,
        id: &OrganizationId,
        errand: &Errand,
    ) -> Result<Answered<Option<WholeEntity>>, DirectoryError> {
        let url = self.sender.url(&["organizations", id.as_str()], &[]);
        let Answered { value, as_of } = self
            .sender
            .get::<Box<RawValue>>(Endpoint::Organization, self.share, url, errand)
            .await?;
        let found = value.map(|source| mirrored::organization(&source));
        let found = found.transpose().map_err(unusable)?;
        if found.as_ref().is_some_and(|found| found.id != *id) {
            return Err(unusable(model::somebody_else("id")));
        }
        let value = found.map(|found| WholeEntity::Organization(Box::new(found)));
        Ok(Answered { value, as_of })
    }

    async fn membership_of(
        &self,
        organization: &OrganizationId,
        user: &UserId,
        errand: &Errand,
    ) -> Result<Answered<Option<WholeEntity>>, DirectoryError> {
        let segments = ["organizations", organization.as_str(), "memberships"];
        let parameters = [("user_id", user.as_str()), ("limit", "1")];
        let url = self.sender.url(&segments, &parameters);
        let Answered { value: page, as_of } = self
            .sender
            .get::<Page<Box<RawValue>>>(Endpoint::OrganizationMemberships, self.share, url, errand)
            .await?;
        let source = page.and_then(|page| page.data.into_iter().next());
        let found = source.map(|source| mirrored::membership(&source));
        let Some((found, _)) = found.transpose().map_err(unusable)? else {
            return Ok(Answered { value: None, as_of });
        };
        let membership = &found.membership;
        if membership.organization.id != *organization || membership.user_id != *user {
            return Err(unusable(model::somebody_else("data[0]")));
        }
        let value = Some(WholeEntity::Membership(Box::new(found)));
        Ok(Answered { value, as_of })
    }
}

fn page(
    kind: EntityKind,
    sources: Vec<Box<RawValue>>,
    total: Option<u64>,
) -> Result<ListPage, DirectoryError> {
    let is_last = sources.len() < WholeEntity::PAGE;
    let entities = sources.into_iter().map(|source| {
        Ok::<_, Unreadable>(match kind {
            EntityKind::User => WholeEntity::User(Box::new(mirrored::user(&source)?)),
            EntityKind::Organization => {
                WholeEntity::Organization(Box::new(mirrored::organization(&source)?))
            }
            EntityKind::Membership => {
                WholeEntity::Membership(Box::new(mirrored::membership(&source)?.0))
            }
        })
    });
    Ok(ListPage {
        entities: entities.collect::<Result<_, _>>().map_err(unusable)?,
        total,
        is_last,
    })
}

fn no_list(what: &str) -> DirectoryError {
    unusable(Unreadable::Member(format!("there is no {what}")))
}
