"""Clerk's Python client and the offline Clerk. Prints a JSON line per check; run.py counts them."""

import json
import os
import urllib.request

import httpx
from clerk_backend_api import Clerk, models

URL = os.environ["CLERK_API_URL"]


def client(key=os.environ["CLERK_SECRET_KEY"]):
    # No proxy of the environment stands between here and this machine.
    http = httpx.Client(trust_env=False, follow_redirects=True)
    return Clerk(bearer_auth=key, server_url=f"{URL}/v1", client=http, timeout_ms=20_000)


clerk = client()


def knob(method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"{URL}/_emulator/{path}", data, {"content-type": "application/json"}, method=method
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=10) as answer:
        return answer.read()


def refusal(ask):
    """Status, headers and Clerk's code of what `ask` is refused with."""
    try:
        ask()
    except models.ClerkBaseError as error:
        body = json.loads(error.body)
        return error.status_code, error.headers, body["errors"][0]["code"]
    raise AssertionError("it was not refused")


def users_are_made_found_changed_and_deleted():
    made = clerk.users.create(
        email_address=["eve@example.com"], external_id="e1", username="eve", first_name="Eve",
        public_metadata={"tier": "gold"},
    )
    assert made.id.startswith("user_") and made.email_addresses[0].email_address == "eve@example.com"
    found = clerk.users.list(request={"email_address": ["eve@example.com"]})
    assert [user.id for user in found] == [made.id]
    assert clerk.users.count(request={"query": "eve"}).total_count == 1
    changed = clerk.users.update(user_id=made.id, last_name="Evans")
    assert (changed.first_name, changed.last_name) == ("Eve", "Evans")
    assert changed.updated_at > made.updated_at
    merged = clerk.users.update_metadata(user_id=made.id, public_metadata={"seat": 4})
    assert merged.public_metadata == {"tier": "gold", "seat": 4}
    replaced = clerk.users.replace_metadata(user_id=made.id, public_metadata={"seat": 5})
    assert replaced.public_metadata == {"seat": 5}
    assert clerk.users.delete(user_id=made.id).deleted
    status, _, code = refusal(lambda: clerk.users.get(user_id=made.id))
    assert (status, code) == (404, "resource_not_found")


def users_are_paged():
    for number in range(12):
        clerk.users.create(email_address=[f"walk{number}@example.com"])
    total = clerk.users.count(request={}).total_count
    seen = []
    for offset in range(0, total, 5):
        page = clerk.users.list(request={"limit": 5, "offset": offset, "order_by": "+created_at"})
        seen += [user.id for user in page]
    assert len(seen) == len(set(seen)) == total, (len(seen), total)
    assert len(clerk.users.list(request={})) == 10
    chosen = clerk.users.list(request={"user_id": ["+user_alice", "user_bob", "user_nobody"]})
    assert {user.id for user in chosen} == {"user_alice", "user_bob"}


def organizations_and_memberships():
    made = clerk.organizations.create(request={"name": "Umbrella", "created_by": "user_carol"})
    found = clerk.organizations.get(organization_id=made.slug, include_members_count=True)
    assert (found.id, found.members_count) == (made.id, 1)
    listed = clerk.organizations.list(query="umbr")
    assert (listed.total_count, listed.data[0].id) == (1, made.id)
    changed = clerk.organizations.update(organization_id=made.id, name="Umbrella Corp")
    assert changed.name == "Umbrella Corp"
    joined = clerk.organization_memberships.create(
        organization_id=made.id, user_id="user_bob", role="org:member"
    )
    assert "org:sys_memberships:read" in joined.permissions
    one = clerk.organization_memberships.list(organization_id=made.id, user_id=["user_bob"])
    assert (one.total_count, one.data[0].role) == (1, "org:member")
    none = clerk.organization_memberships.list(organization_id=made.id, user_id=["user_alice"])
    assert (none.total_count, none.data) == (0, [])
    page = clerk.organization_memberships.list(
        organization_id=made.id, limit=1, offset=1, order_by="+created_at"
    )
    assert (page.total_count, page.data[0].public_user_data.user_id) == (2, "user_bob")
    raised = clerk.organization_memberships.update(
        organization_id=made.id, user_id="user_bob", role="org:admin"
    )
    assert "org:sys_memberships:manage" in raised.permissions
    of_bob = clerk.users.get_organization_memberships(user_id="user_bob", limit=500)
    assert made.id in [membership.organization.id for membership in of_bob.data]
    clerk.organization_memberships.delete(organization_id=made.id, user_id="user_bob")
    assert clerk.organizations.delete(organization_id=made.id).deleted
    status, *_ = refusal(lambda: clerk.organization_memberships.list(organization_id=made.id))
    assert status == 404


def roles_and_permissions():
    permission = clerk.organization_permissions.create(
        name="Read letters", key="org:letters:read"
    )
    role = clerk.organization_roles.create(
        name="Clerk", key="org:clerk", permissions=[permission.id]
    )
    assert [p.key for p in role.permissions] == ["org:letters:read"]
    system = clerk.organization_permissions.list(query="sys_billing:read").data[0]
    role = clerk.organization_roles.assign_permission(
        organization_role_id=role.id, permission_id=system.id
    )
    assert len(role.permissions) == 2
    role = clerk.organization_roles.remove_permission(
        organization_role_id=role.id, permission_id=permission.id
    )
    assert [p.key for p in role.permissions] == ["org:sys_billing:read"]
    roles = clerk.organization_roles.list(order_by="+key", limit=500)
    assert [r.key for r in roles.data] == ["org:admin", "org:clerk", "org:member"]
    assert clerk.organization_roles.delete(organization_role_id=role.id).deleted


def sessions_and_tokens():
    session = clerk.sessions.create(
        request={"user_id": "user_alice", "active_organization_id": "org_acme"}
    )
    assert clerk.sessions.get(session_id=session.id).status == "active"
    token = clerk.sessions.create_token(session_id=session.id)
    assert token.jwt.count(".") == 2
    live = clerk.sessions.list(user_id="user_alice", status="active")
    assert session.id in [found.id for found in live]
    assert clerk.sessions.revoke(session_id=session.id).status == "revoked"
    bobs = clerk.sessions.create(request={"user_id": "user_bob"})
    assert clerk.users.ban(user_id="user_bob").banned
    assert clerk.sessions.get(session_id=bobs.id).status == "revoked"
    assert not clerk.users.unban(user_id="user_bob").banned


def keys_are_served():
    keys = clerk.jwks.get_jwks().keys
    assert len(keys) == 1


def what_is_wrong_is_refused_in_clerks_form():
    status, _, code = refusal(lambda: client("sk_test_wrong").users.get(user_id="user_bob"))
    assert (status, code) == (401, "clerk_key_invalid")
    status, _, code = refusal(
        lambda: clerk.organization_memberships.create(
            organization_id="org_acme", user_id="user_carol", role="org:nothing"
        )
    )
    assert (status, code) == (422, "form_param_value_invalid")


def a_full_budget_is_429_with_retry_after():
    knob("PUT", "rate_limit", {"requests": 1, "seconds": 60})
    try:
        clerk.users.get(user_id="user_alice")
        status, headers, code = refusal(lambda: clerk.users.get(user_id="user_alice"))
    finally:
        knob("DELETE", "rate_limit")
    assert (status, code) == (429, "too_many_requests")
    assert 1 <= int(headers["retry-after"]) <= 60


def main():
    for check in [
        users_are_made_found_changed_and_deleted,
        users_are_paged,
        organizations_and_memberships,
        roles_and_permissions,
        sessions_and_tokens,
        keys_are_served,
        what_is_wrong_is_refused_in_clerks_form,
        a_full_budget_is_429_with_retry_after,
    ]:
        try:
            check()
            ok, detail = True, ""
        except Exception as error:  # noqa: BLE001 - whatever it is, the check has failed
            ok, detail = False, repr(error)
        print(json.dumps({"name": check.__name__, "ok": ok, "detail": detail}), flush=True)


main()
