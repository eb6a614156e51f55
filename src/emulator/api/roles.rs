//! Roles, over HTTP.

use axum::http::Method;

use super::{
    Answer, Call, Operation, Problem,
    form::deleted,
    lists::{Key, paged, sort},
    objects, operation,
};
use crate::emulator::{
    Endpoint,
    directory::{Refused, Role, Tables},
};

pub(super) fn operations() -> Vec<Operation> {
    let on = |id, method, path, run| operation(id, method, path, Endpoint::Roles, run);
    let all = "/v1/organization_roles";
    let one = "/v1/organization_roles/{organization_role_id}";
    let permission = "/v1/organization_roles/{organization_role_id}/permissions/{permission_id}";
    vec![
        on("ListOrganizationRoles", Method::GET, all, list),
        on("CreateOrganizationRole", Method::POST, all, create),
        on("GetOrganizationRole", Method::GET, one, get),
        on("UpdateOrganizationRole", Method::PATCH, one, update),
        on("DeleteOrganizationRole", Method::DELETE, one, delete),
        on(
            "AssignPermissionToOrganizationRole",
            Method::POST,
            permission,
            assign,
        ),
        on(
            "RemovePermissionFromOrganizationRole",
            Method::DELETE,
            permission,
            remove,
        ),
    ]
}

fn list(call: &mut Call<'_>) -> Answer {
    let part = call.query.text("query").map(str::to_lowercase);
    let page = call.query.page()?;
    let order = call.query.order(&["created_at", "name", "key"])?;
    call.directory().read(|tables| {
        let roles = tables.roles.iter();
        let mut roles: Vec<&Role> = roles
            .filter(|role| {
                part.as_deref().is_none_or(|part| {
                    role.id.to_lowercase() == part
                        || role.name.to_lowercase().contains(part)
                        || role.key.contains(part)
                })
            })
            .collect();
        sort(&mut roles, order, |role| match order.by {
            "name" => Key::text(Some(&role.name)),
            "key" => Key::text(Some(&role.key)),
            _ => Key::Number(role.stamp.created_at),
        });
        Ok(paged(roles, page, |role| objects::role(tables, role)))
    })
}

/// By id only: the key has no address at Clerk.
fn found(call: &Call<'_>) -> Result<Role, Problem> {
    let id = call.id("organization_role_id");
    let role = call
        .directory()
        .read(|tables| tables.roles.get(id).cloned());
    role.ok_or_else(|| Problem::not_found(format!("no role {id:?}")))
}

fn answer(call: &Call<'_>, role: &Role) -> Answer {
    Ok(call.directory().read(|tables| objects::role(tables, role)))
}

fn get(call: &mut Call<'_>) -> Answer {
    answer(call, &found(call)?)
}

/// The keys of permissions that are named by id.
fn keys_of(tables: &Tables, ids: &[String]) -> Result<Vec<String>, Problem> {
    let key = |id: &String| match tables.permissions.get(id) {
        Some(permission) => Ok(permission.key.clone()),
        None => {
            let message = format!("permissions: no permission with the id {id:?}");
            Err(Problem::invalid("permissions", message))
        }
    };
    ids.iter().map(key).collect()
}

fn create(call: &mut Call<'_>) -> Answer {
    let form = &mut call.form;
    let name = form.required_text("name")?;
    let key = form.required_text("key")?;
    let description = form.text("description")?.value();
    let ids = form.texts("permissions")?.value().unwrap_or_default();
    form.ignore(&["include_in_initial_role_set"]);
    form.finish()?;
    let permissions = call.directory().read(|tables| keys_of(tables, &ids))?;
    let role = call.directory().create_role(Role {
        key,
        name,
        description,
        permissions,
        ..Role::default()
    })?;
    answer(call, &role)
}

fn update(call: &mut Call<'_>) -> Answer {
    let id = found(call)?.id;
    let form = &mut call.form;
    let name = form.text("name")?;
    let key = form.text("key")?;
    let description = form.text("description")?;
    let ids = form.texts("permissions")?.value();
    form.finish()?;
    let permissions = match ids {
        Some(ids) => Some(call.directory().read(|tables| keys_of(tables, &ids))?),
        None => None,
    };
    let role = call.directory().change_role(&id, |role| {
        name.apply_to(&mut role.name);
        key.apply_to(&mut role.key);
        description.apply(&mut role.description);
        if let Some(permissions) = permissions {
            role.permissions = permissions;
        }
    })?;
    answer(call, &role)
}

fn delete(call: &mut Call<'_>) -> Answer {
    let role = call.directory().delete_role(&found(call)?.id)?;
    deleted("role", &role.id)
}

fn permission_key(call: &Call<'_>) -> Result<String, Problem> {
    let id = call.id("permission_id");
    let found = call
        .directory()
        .read(|tables| tables.permissions.get(id).cloned());
    let permission = found.ok_or_else(|| Problem::not_found(format!("no permission {id:?}")))?;
    Ok(permission.key)
}

fn assign(call: &mut Call<'_>) -> Answer {
    let role = found(call)?;
    let permission = permission_key(call)?;
    if role.permissions.contains(&permission) {
        return Err(Refused::AlreadyAssigned {
            role: role.key,
            permission,
        }
        .into());
    }
    let role = call
        .directory()
        .change_role(&role.id, |role| role.permissions.push(permission))?;
    answer(call, &role)
}

fn remove(call: &mut Call<'_>) -> Answer {
    let role = found(call)?;
    let permission = permission_key(call)?;
    if !role.permissions.contains(&permission) {
        let message = format!("{} has no {permission}", role.key);
        return Err(Problem::not_found(message));
    }
    let role = call.directory().change_role(&role.id, |role| {
        role.permissions.retain(|key| *key != permission);
    })?;
    answer(call, &role)
}
