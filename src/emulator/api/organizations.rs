//! Organizations, over HTTP.

use axum::http::Method;
use serde_json::json;

use super::{
    Answer, Call, Operation, Problem, Version,
    form::{Edit, Form, deleted, merge},
    lists::{Key, paged, sort},
    objects, operation,
    query::Choice,
};
use crate::emulator::{
    Endpoint,
    directory::{Metadata, Organization},
};

pub(super) fn operations() -> Vec<Operation> {
    let on = |id, method, path, run| operation(id, method, path, Endpoint::Organizations, run);
    let one = "/v1/organizations/{organization_id}";
    let metadata = "/v1/organizations/{organization_id}/metadata";
    vec![
        on("ListOrganizations", Method::GET, "/v1/organizations", list),
        on(
            "CreateOrganization",
            Method::POST,
            "/v1/organizations",
            create,
        ),
        on("GetOrganization", Method::GET, one, get),
        on("UpdateOrganization", Method::PATCH, one, update),
        on("DeleteOrganization", Method::DELETE, one, delete),
        on(
            "MergeOrganizationMetadata",
            Method::PATCH,
            metadata,
            |call| change_metadata(call, merge),
        ),
        on(
            "ReplaceOrganizationMetadata",
            Method::PUT,
            metadata,
            |call| change_metadata(call, |old, new| *old = new),
        ),
    ]
}

fn list(call: &mut Call<'_>) -> Answer {
    let query = &call.query;
    let ids = query.choice("organization_id")?;
    let users = query.choice("user_id")?;
    let part = query.text("query").map(str::to_lowercase);
    let with_count = query.flag("include_members_count")?.unwrap_or(false);
    let page = query.page()?;
    let order = query.order(&["created_at", "name", "members_count"])?;
    call.directory().read(|tables| {
        let organizations = tables.organizations.iter();
        let mut organizations: Vec<&Organization> = organizations
            .filter(|organization| {
                let has_members = || {
                    let members = tables.members_of(&organization.id);
                    let members: Vec<&str> = members.iter().map(String::as_str).collect();
                    users.accepts_any(&members)
                };
                ids.accepts(&organization.id)
                    && (users == Choice::default() || has_members())
                    && part.as_deref().is_none_or(|part| {
                        organization.id.to_lowercase() == part
                            || organization.name.to_lowercase().contains(part)
                            || organization.slug.contains(part)
                    })
            })
            .collect();
        sort(&mut organizations, order, |organization| match order.by {
            "name" => Key::text(Some(&organization.name)),
            "members_count" => {
                let count = objects::members_count(tables, organization);
                Key::number(i64::try_from(count).ok())
            }
            _ => Key::Number(organization.stamp.created_at),
        });
        Ok(paged(organizations, page, |organization| {
            if with_count {
                objects::organization_with_count(tables, organization)
            } else {
                objects::organization(organization)
            }
        }))
    })
}

/// By id or slug.
fn get(call: &mut Call<'_>) -> Answer {
    let with_count = call.query.flag("include_members_count")?.unwrap_or(false);
    let id = call.id("organization_id");
    call.directory()
        .read(|tables| match tables.organization(id) {
            Some(it) if with_count => Ok(objects::organization_with_count(tables, it)),
            Some(it) => Ok(objects::organization(it)),
            None => Err(Problem::not_found(format!("no organization {id:?}"))),
        })
}

fn create(call: &mut Call<'_>) -> Answer {
    let form = &mut call.form;
    let mut organization = Organization {
        created_by: form.text("created_by")?.value(),
        slug: form.text("slug")?.value().unwrap_or_default(),
        public_metadata: form
            .metadata("public_metadata")?
            .value()
            .unwrap_or_default(),
        private_metadata: form
            .metadata("private_metadata")?
            .value()
            .unwrap_or_default(),
        ..Organization::named(&form.required_text("name")?)
    };
    organization.max_allowed_memberships = max_memberships(form)?.unwrap_or(0);
    form.time("created_at")?
        .apply_to(&mut organization.stamp.created_at);
    form.ignore(&["role_set_key"]);
    form.finish()?;
    let organization = call.directory().create_organization(organization)?;
    Ok(call
        .directory()
        .read(|tables| objects::organization_with_count(tables, &organization)))
}

fn update(call: &mut Call<'_>) -> Answer {
    let form = &mut call.form;
    let name = form.text("name")?;
    let slug = form.text("slug")?;
    let max = max_memberships(form)?;
    let admin_delete = form.flag("admin_delete_enabled")?;
    let created_at = form.time("created_at")?;
    let (public, private) = match call.version {
        Version::MetadataApart => (Edit::Keep, Edit::Keep),
        Version::MetadataInUpdates => (
            form.metadata("public_metadata")?,
            form.metadata("private_metadata")?,
        ),
    };
    form.ignore(&["role_set_key"]);
    form.finish()?;
    let id = call.id("organization_id");
    let changed = call.directory().change_organization(id, |organization| {
        name.apply_to(&mut organization.name);
        slug.apply_to(&mut organization.slug);
        admin_delete.apply_to(&mut organization.admin_delete);
        created_at.apply_to(&mut organization.stamp.created_at);
        public.apply_to(&mut organization.public_metadata);
        private.apply_to(&mut organization.private_metadata);
        if let Some(max) = max {
            organization.max_allowed_memberships = max;
        }
    })?;
    Ok(objects::organization(&changed))
}

fn max_memberships(form: &mut Form) -> Result<Option<u64>, Problem> {
    let number = form.number("max_allowed_memberships", 0, i64::MAX)?;
    Ok(number.value().and_then(|number| number.try_into().ok()))
}

fn delete(call: &mut Call<'_>) -> Answer {
    let organization = call
        .directory()
        .delete_organization(call.id("organization_id"))?;
    let mut answer = deleted("organization", &organization.id)?;
    answer["slug"] = json!(organization.slug);
    Ok(answer)
}

fn change_metadata(call: &mut Call<'_>, how: fn(&mut Metadata, Metadata)) -> Answer {
    let public = call.form.metadata("public_metadata")?.value();
    let private = call.form.metadata("private_metadata")?.value();
    call.form.finish()?;
    let id = call.id("organization_id");
    let changed = call.directory().change_organization(id, |organization| {
        if let Some(public) = public {
            how(&mut organization.public_metadata, public);
        }
        if let Some(private) = private {
            how(&mut organization.private_metadata, private);
        }
    })?;
    Ok(objects::organization(&changed))
}
