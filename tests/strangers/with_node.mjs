// Clerk's Node SDK and the offline Clerk. Prints a JSON line per check; run.py counts them.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';

// The SDK is installed where the oracle has it.
const require = createRequire(new URL('../../conformance/', import.meta.url));
const { createClerkClient, verifyToken } = require('@clerk/backend');

const apiUrl = process.env.CLERK_API_URL;
const secretKey = process.env.CLERK_SECRET_KEY;
const clerk = createClerkClient({ apiUrl, secretKey });

const knob = async (method, path, body) => {
  const answer = await fetch(`${apiUrl}/_emulator/${path}`, {
    method,
    headers: { 'content-type': 'application/json' },
    body: body && JSON.stringify(body),
  });
  assert.ok(answer.ok, `${method} ${path}: ${answer.status}`);
};

/** What `ask` is refused with. */
const refusal = async ask => {
  try {
    await ask();
  } catch (error) {
    return { status: error.status, code: error.errors?.[0]?.code, error };
  }
  throw new Error('it was not refused');
};

const checks = {
  async 'users are made, found, changed and deleted'() {
    const made = await clerk.users.createUser({
      emailAddress: ['eve@example.com'], externalId: 'e1', username: 'eve', firstName: 'Eve',
      publicMetadata: { tier: 'gold' },
    });
    assert.equal(made.primaryEmailAddress.emailAddress, 'eve@example.com');
    const found = await clerk.users.getUserList({ emailAddress: ['eve@example.com'] });
    assert.deepEqual([found.totalCount, found.data.map(user => user.id)], [1, [made.id]]);
    const changed = await clerk.users.updateUser(made.id, { lastName: 'Evans' });
    assert.equal(changed.fullName, 'Eve Evans');
    assert.ok(changed.updatedAt > made.updatedAt);
    const merged = await clerk.users.updateUserMetadata(made.id, { publicMetadata: { seat: 4 } });
    assert.deepEqual(merged.publicMetadata, { tier: 'gold', seat: 4 });
    await clerk.users.deleteUser(made.id);
    const gone = await refusal(() => clerk.users.getUser(made.id));
    assert.deepEqual([gone.status, gone.code], [404, 'resource_not_found']);
    assert.ok(gone.error.clerkTraceId);
  },

  async 'lists are paged'() {
    for (let number = 0; number < 12; number++) {
      await clerk.users.createUser({ emailAddress: [`walk${number}@example.com`] });
    }
    const first = await clerk.users.getUserList();
    assert.equal(first.data.length, 10);
    const seen = new Set();
    for (let offset = 0; offset < first.totalCount; offset += 5) {
      const page = await clerk.users.getUserList({ limit: 5, offset, orderBy: '+created_at' });
      for (const user of page.data) seen.add(user.id);
    }
    assert.equal(seen.size, first.totalCount);
    const wrong = await refusal(() => clerk.users.getUserList({ limit: 501 }));
    assert.deepEqual([wrong.status, wrong.error.errors[0].meta.paramName], [422, 'limit']);
  },

  async 'organizations and memberships'() {
    const { organizations } = clerk;
    const made = await organizations.createOrganization({ name: 'Umbrella', createdBy: 'user_carol' });
    const organizationId = made.id;
    const found = await organizations.getOrganization({ slug: made.slug, includeMembersCount: true });
    assert.deepEqual([found.id, found.membersCount], [organizationId, 1]);
    const changed = await organizations.updateOrganization(organizationId, { name: 'Umbrella Corp' });
    assert.equal(changed.name, 'Umbrella Corp');
    const member = { organizationId, userId: 'user_bob' };
    const joined = await organizations.createOrganizationMembership({ ...member, role: 'org:member' });
    assert.ok(joined.permissions.includes('org:sys_memberships:read'));
    const one = await organizations.getOrganizationMembershipList({ organizationId, userId: ['user_bob'] });
    assert.deepEqual([one.totalCount, one.data[0].role], [1, 'org:member']);
    const none = await organizations.getOrganizationMembershipList({ organizationId, userId: ['user_alice'] });
    assert.deepEqual([none.totalCount, none.data], [0, []]);
    const raised = await organizations.updateOrganizationMembership({ ...member, role: 'org:admin' });
    assert.ok(raised.permissions.includes('org:sys_memberships:manage'));
    const ofBob = await clerk.users.getOrganizationMembershipList({ userId: 'user_bob', limit: 500 });
    assert.ok(ofBob.data.some(({ organization }) => organization.id === organizationId));
    await organizations.deleteOrganizationMembership(member);
    await organizations.deleteOrganization(organizationId);
    const gone = await refusal(() => organizations.getOrganizationMembershipList({ organizationId }));
    assert.equal(gone.status, 404);
  },

  async 'roles and permissions'() {
    const permissions = clerk.organizationPermissions;
    const roles = clerk.organizationRoles;
    const permission = await permissions.createOrganizationPermission({
      name: 'Read letters', key: 'org:letters:read',
    });
    const role = await roles.createOrganizationRole({
      name: 'Clerk', key: 'org:clerk', permissions: [permission.id],
    });
    assert.deepEqual(role.permissions.map(({ key }) => key), ['org:letters:read']);
    const system = await permissions.getOrganizationPermissionList({ query: 'sys_billing:read' });
    const pair = { organizationRoleId: role.id, permissionId: system.data[0].id };
    assert.equal((await roles.assignPermissionToOrganizationRole(pair)).permissions.length, 2);
    assert.equal((await roles.removePermissionFromOrganizationRole(pair)).permissions.length, 1);
    const all = await roles.getOrganizationRoleList({ orderBy: '+key' });
    assert.deepEqual(all.data.map(({ key }) => key), ['org:admin', 'org:clerk', 'org:member']);
    await roles.deleteOrganizationRole(role.id);
  },

  async 'sessions, and tokens that the SDK verifies with the keys served here'() {
    const session = await clerk.sessions.createSession({ userId: 'user_alice' });
    assert.equal(session.status, 'active');
    const { jwt } = await clerk.sessions.getToken(session.id);
    const claims = await verifyToken(jwt, { apiUrl, secretKey });
    assert.deepEqual([claims.sub, claims.sid], ['user_alice', session.id]);
    const live = await clerk.sessions.getSessionList({ userId: 'user_alice', status: 'active' });
    assert.deepEqual(live.data.map(({ id }) => id), [session.id]);
    assert.equal((await clerk.sessions.revokeSession(session.id)).status, 'revoked');
    const bobs = await clerk.sessions.createSession({ userId: 'user_bob' });
    assert.equal((await clerk.users.banUser('user_bob')).banned, true);
    assert.equal((await clerk.sessions.getSession(bobs.id)).status, 'revoked');
    assert.equal((await clerk.users.unbanUser('user_bob')).banned, false);
  },

  async 'a wrong key is refused'() {
    const stranger = createClerkClient({ apiUrl, secretKey: 'sk_test_wrong' });
    const { status, code } = await refusal(() => stranger.users.getUser('user_bob'));
    assert.deepEqual([status, code], [401, 'clerk_key_invalid']);
  },

  async 'a full budget is 429 with Retry-After'() {
    await knob('PUT', 'rate_limit', { requests: 1, seconds: 60 });
    try {
      await clerk.users.getUser('user_alice');
      const { status, error } = await refusal(() => clerk.users.getUser('user_alice'));
      assert.equal(status, 429);
      assert.ok(error.retryAfter >= 1 && error.retryAfter <= 60, `${error.retryAfter}`);
    } finally {
      await knob('DELETE', 'rate_limit');
    }
  },

  async 'a fault hits its endpoint alone'() {
    await knob('PUT', 'faults', { endpoint: 'memberships', fault: 'server_error' });
    try {
      const organizationId = 'org_acme';
      const { status } = await refusal(() =>
        clerk.organizations.getOrganizationMembershipList({ organizationId }),
      );
      assert.equal(status, 500);
      assert.equal((await clerk.organizations.getOrganization({ organizationId })).slug, 'acme');
    } finally {
      await knob('DELETE', 'faults');
    }
  },
};

for (const [name, check] of Object.entries(checks)) {
  let detail = '';
  try {
    await check();
  } catch (error) {
    detail = String(error?.stack ?? error);
  }
  console.log(JSON.stringify({ name, ok: detail === '', detail }));
}
