//! Permissions, over HTTP.

use axum::http::Method;

use super::{
    Answer, Call, Operation, Problem,
    form::deleted,
    lists::{Key, paged, sort},
    objects, operation,
};
use crate::emulator::{Endpoint, directory::Permission};

pub(super) fn operations() -> Vec<Operation> {
    let on = |id, method, path, run| operation(id, method, path, Endpoint::Permissions, run);
    let all = "/v1/organization_permissions";
    let one = "/v1/organization_permissions/{permission_id}";
    vec![
        on("ListOrganizationPermissions", Method::GET, all, list),
        on("CreateOrganizationPermission", Method::POST, all, create),
        on("GetOrganizationPermission", Method::GET, one, get),
        on("UpdateOrganizationPermission", Method::PATCH, one, update),
        on("DeleteOrganizationPermission", Method::DELETE, one, delete),
    ]
}

fn list(call: &mut Call<'_>) -> Answer {
    let part = call.query.text("query").map(str::to_lowercase);
    let page = call.query.page()?;
    let order = call.query.order(&["created_at", "name", "key"])?;
    call.directory().read(|tables| {
        let permissions = tables.permissions.iter();
        let mut permissions: Vec<&Permission> = permissions
            .filter(|permission| {
                part.as_deref().is_none_or(|part| {
                    permission.id.to_lowercase() == part
                        || permission.name.to_lowercase().contains(part)
                        || permission.key.contains(part)
                })
            })
            .collect();
        sort(&mut permissions, order, |permission| match order.by {
            "name" => Key::text(Some(&permission.name)),
            "key" => Key::text(Some(&permission.key)),
            _ => Key::Number(permission.stamp.created_at),
        });
        Ok(paged(permissions, page, objects::permission))
    })
}

/// By id only: the key has no address at Clerk.
fn found(call: &Call<'_>) -> Result<Permission, Problem> {
    let id = call.id("permission_id");
    let found = call
        .directory()
        .read(|tables| tables.permissions.get(id).cloned());
    found.ok_or_else(|| Problem::not_found(format!("no permission {id:?}")))
}

fn get(call: &mut Call<'_>) -> Answer {
    Ok(objects::permission(&found(call)?))
}

fn create(call: &mut Call<'_>) -> Answer {
    let form = &mut call.form;
    let permission = Permission {
        name: form.required_text("name")?,
        key: form.required_text("key")?,
        description: form.text("description")?.value().unwrap_or_default(),
        ..Permission::default()
    };
    form.finish()?;
    let permission = call.directory().create_permission(permission)?;
    Ok(objects::permission(&permission))
}

fn update(call: &mut Call<'_>) -> Answer {
    let id = found(call)?.id;
    let form = &mut call.form;
    let name = form.text("name")?;
    let key = form.text("key")?;
    let description = form.text("description")?;
    form.finish()?;
    let permission = call.directory().change_permission(&id, |permission| {
        name.apply_to(&mut permission.name);
        key.apply_to(&mut permission.key);
        description.apply_to(&mut permission.description);
    })?;
    Ok(objects::permission(&permission))
}

fn delete(call: &mut Call<'_>) -> Answer {
    let permission = call.directory().delete_permission(&found(call)?.id)?;
    deleted("permission", &permission.id)
}
