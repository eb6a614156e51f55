"""Cuts the parts of Clerk's OpenAPI files that tests/it holds the offline Clerk to.

    pip install pyyaml
    python3 scripts/cut-clerk-openapi.py bapi/2026-05-12.yml > tests/it/clerk-openapi/bapi.json
    python3 scripts/cut-clerk-openapi.py webhooks/2025-04-15.yml > tests/it/clerk-openapi/webhooks.json

The files are those of https://github.com/clerk/openapi-specs. Of each operation below it keeps
parameters, body and answers, of webhooks the names of all events and the bodies of those below, with
the schemas that these name; it leaves out prose and examples. The same file gives the same text.
"""

import json
import sys

import yaml

OPERATIONS = """
GetJWKS
GetUserList CreateUser GetUsersCount GetUser UpdateUser DeleteUser
BanUser UnbanUser LockUser UnlockUser UpdateUserMetadata ReplaceUserMetadata
ListOrganizations CreateOrganization GetOrganization UpdateOrganization DeleteOrganization
MergeOrganizationMetadata ReplaceOrganizationMetadata
ListOrganizationMemberships CreateOrganizationMembership UpdateOrganizationMembership
DeleteOrganizationMembership UpdateOrganizationMembershipMetadata
UsersGetOrganizationMemberships InstanceGetOrganizationMemberships
ListOrganizationRoles CreateOrganizationRole GetOrganizationRole UpdateOrganizationRole
DeleteOrganizationRole AssignPermissionToOrganizationRole RemovePermissionFromOrganizationRole
ListOrganizationPermissions CreateOrganizationPermission GetOrganizationPermission
UpdateOrganizationPermission DeleteOrganizationPermission
GetSessionList createSession GetSession RevokeSession CreateSessionToken
CreateSessionTokenFromTemplate
verifyM2MToken verifyOAuthAccessToken verifyApiKey
CreateSignInToken
""".split()
# What these begin with, the offline Clerk sends.
EVENTS = ("user.", "session.", "organization.", "organizationMembership.", "role.", "permission.")
KEPT = ("operationId", "parameters", "requestBody", "responses")
PROSE = {"description", "example", "examples", "title"}


def without_prose(node, names_are_data=False):
    """`names_are_data`: the keys are names of properties, and one may be called `description`."""
    if isinstance(node, dict):
        return {
            key: without_prose(value, key == "properties" and not names_are_data)
            for key, value in node.items()
            if names_are_data or key not in PROSE
        }
    if isinstance(node, list):
        return [without_prose(item) for item in node]
    return node


def references(node):
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(node, list):
        for item in node:
            yield from references(item)


def cut_operations(whole):
    paths = {}
    found = set()
    for path, item in whole["paths"].items():
        for method, operation in item.items():
            if isinstance(operation, dict) and operation.get("operationId") in OPERATIONS:
                found.add(operation["operationId"])
                kept = {key: operation[key] for key in KEPT if key in operation}
                paths.setdefault(path, {})[method] = without_prose(kept)
    missing = set(OPERATIONS) - found
    if missing:
        sys.exit(f"no such operations: {', '.join(sorted(missing))}")
    return paths


def cut_events(whole):
    """Each event's body; `null` of those that are not sent here."""
    events = {}
    for name, item in whole["x-webhooks"].items():
        body = item["post"]["requestBody"]["content"]["application/json"]["schema"]
        events[name] = without_prose(body) if name.startswith(EVENTS) else None
    return events


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        whole = yaml.safe_load(file)
    cut = {"openapi": whole["openapi"], "info": {"title": whole["info"]["title"],
           "version": whole["info"]["version"], "license": whole["info"].get("license")}}
    if "x-webhooks" in whole:
        part = cut["x-webhooks"] = cut_events(whole)
    else:
        part = cut["paths"] = cut_operations(whole)
    components = {}
    waiting = list(references(part))
    while waiting:
        _, _, kind, name = waiting.pop(0).split("/")
        if name not in components.setdefault(kind, {}):
            components[kind][name] = without_prose(whole["components"][kind][name])
            waiting += references(components[kind][name])
    cut["components"] = {
        kind: dict(sorted(named.items())) for kind, named in sorted(components.items())
    }
    json.dump(cut, sys.stdout, indent=1, ensure_ascii=False)
    print()


main()
