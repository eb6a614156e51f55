// Makes cases, asks Clerk's own SDK about each, and writes one JSON line per case.
//
//   node oracle.mjs --cases 12000 --seed 1 --out cases.jsonl
//
// The first line describes the instances; tests/it/oracle.rs reads the rest and asks this crate.
// Same seed, same cases (the keys are new in each run: no verdict depends on them).

import { createClerkClient, verifyToken } from '@clerk/backend';
import { createHash, generateKeyPairSync, sign as rsaSign, createHmac } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';

import { chanceOf } from './chance.mjs';

const { values: args } = parseArgs({
  options: {
    cases: { type: 'string', default: '12000' },
    seed: { type: 'string', default: '1' },
    out: { type: 'string', default: 'cases.jsonl' },
  },
});

const { below, pick, chance } = chanceOf(Number(args.seed));

// === time stands still ===
const NOW = 1_800_000_000;
let nowMs = NOW * 1000;
const RealDate = Date;
globalThis.Date = class extends RealDate {
  constructor(...given) {
    super(...(given.length === 0 ? [nowMs] : given));
  }
  static now() {
    return nowMs;
  }
};
// Nothing leaves this machine, and what the SDK logs about odd cookies is no concern here.
globalThis.fetch = async () => new Response('{}', { status: 500 });
console.log = console.info = console.warn = console.error = () => {};

// === keys and instances ===
const rsa = () => generateKeyPairSync('rsa', { modulusLength: 2048 });
const ours = rsa();
const stranger = rsa();
const pem = ours.publicKey.export({ type: 'spki', format: 'pem' });
const instances = {
  production: { host: 'clerk.example.com', key: 'pk_live_' + btoa('clerk.example.com$').replace(/=+$/, '') },
  development: {
    host: 'happy-otter-12.clerk.accounts.dev',
    key: 'pk_test_' + btoa('happy-otter-12.clerk.accounts.dev$').replace(/=+$/, ''),
  },
};
const suffixOf = key =>
  createHash('sha1').update(key).digest('base64').replaceAll('+', '-').replaceAll('/', '_').slice(0, 8);

// === tokens: lists of [name, raw JSON], so that anything can be written ===
const b64 = text => Buffer.from(text).toString('base64url');
const object = members => '{' + members.map(([name, raw]) => `${JSON.stringify(name)}:${raw}`).join(',') + '}';
const set = (members, name, raw) => {
  const at = members.findIndex(([known]) => known === name);
  if (raw === undefined) {
    if (at >= 0) members.splice(at, 1);
  } else if (at >= 0) members[at] = [name, raw];
  else members.push([name, raw]);
};
const signed = (header, payload, key = ours.privateKey) => {
  const input = `${b64(header)}.${b64(payload)}`;
  return `${input}.${rsaSign('sha256', Buffer.from(input), key).toString('base64url')}`;
};

const CATEGORY = { session: 'cl_B7d4PD111AAA', template: 'cl_B7d4PD222AAA', m2m: 'cl_B7d4PD333AAA', instance: 'cl_I7d4PD111III' };
const goodHeader = () => {
  const header = [['alg', '"RS256"'], ['kid', '"ins_1"'], ['typ', '"JWT"']];
  if (chance(0.7)) header.push(['cat', JSON.stringify(pick([CATEGORY.session, CATEGORY.instance]))]);
  if (chance(0.2)) header.push(['oiat', '1800000000']);
  return header;
};
const names = ['read', 'write', 'manage', 'purge', 'export'];
const slugs = ['invoices', 'reports', 'audit', 'billing', 'a b', 'beta'];
const scopedList = () =>
  Array.from({ length: below(5) }, () => `${pick(['o', 'o', 'u', 'uo', 'ou', 'x'])}:${pick(slugs)}`);
const mask = () =>
  pick([() => String(below(32)), () => '', () => '-1', () => '1.5', () => '0x3', () => '007', () => String(2n ** BigInt(below(90)) + BigInt(below(9)))])();
const goodClaims = instance => {
  const iat = NOW - below(50);
  const claims = [
    ['iss', JSON.stringify(`https://${instance.host}`)],
    ['sub', '"user_2abc"'],
    ['sid', `"sess_${pick(['A', 'B', 'C'])}"`],
    ['iat', String(iat)],
    ['nbf', String(iat - 10)],
    ['exp', String(iat + 60)],
  ];
  if (chance(0.8)) claims.push(['azp', JSON.stringify(pick(['https://app.example.com', 'https://app.example.com', 'http://localhost:3000']))]);
  if (chance(0.6)) claims.push(['jti', '"abc"']);
  if (chance(0.6)) claims.push(['fva', pick(['[0,-1]', '[5,3]', '[-1,-1]', '[10,1440]', '[3,2]'])]);
  if (chance(0.6)) claims.push(['sts', '"active"']);
  if (chance(0.1)) claims.push(['act', pick(['{"sub":"user_admin"}', '{"sub":"user_admin","iss":"https://x.example","sid":"sess_x"}', '{"sub":"agent_1","type":"agent","more":{"a":1}}'])]);
  if (chance(0.1)) claims.push(['aud', pick(['"api"', '["api","web"]', '""', '[]', '"other"'])]);
  if (chance(0.15)) claims.push(['custom', pick(['1', '"x"', '{"a":[1,{"b":null}]}', '[[],{}]', 'true'])]);
  if (chance(0.75)) {
    claims.push(['v', pick(['2', '2', '2', '2.0'])]);
    if (chance(0.7)) claims.push(['fea', JSON.stringify(scopedList().join(','))]);
    if (chance(0.5)) claims.push(['pla', JSON.stringify(pick(['', 'o:gold', 'u:free', 'ou:pro,u:free']))]);
    if (chance(0.7)) {
      const o = [['id', '"org_1"']];
      if (chance(0.8)) o.push(['slg', '"acme"']);
      if (chance(0.9)) o.push(['rol', pick(['"admin"', '"member"', '"org:admin"', '""'])]);
      if (chance(0.8)) o.push(['per', JSON.stringify(Array.from({ length: below(5) }, () => pick([...names, ' read', ''])).join(','))]);
      if (chance(0.8)) o.push(['fpm', JSON.stringify(Array.from({ length: below(5) }, mask).join(pick([',', ', '])))]);
      claims.push(['o', object(o)]);
    }
    if (chance(0.05)) claims.push(['org_id', '"org_ignored"']);
  } else {
    if (chance(0.2)) claims.push(['v', pick(['1', '3', '0'])]);
    if (chance(0.6)) {
      claims.push(['org_id', '"org_1"'], ['org_role', pick(['"org:admin"', '"admin"', '"org:member"'])]);
      if (chance(0.7)) claims.push(['org_slug', '"acme"']);
      if (chance(0.7)) claims.push(['org_permissions', pick(['[]', '["org:invoices:read"]', '["org:a:b","org:c:d"]'])]);
    }
  }
  return claims;
};
const shuffled = list => {
  for (let i = list.length - 1; i > 0; i--) {
    const j = below(i + 1);
    [list[i], list[j]] = [list[j], list[i]];
  }
  return list;
};

const ODD = ['null', 'true', 'false', '0', '1', '-1', '1.5', '2', '""', '"x"', '[]', '[1]', '["x"]', '{}', '{"id":"org_1"}', '{"sub":"user_1"}', '"user_1"', '"sess_1"', '9007199254740993', '9223372036854775808', '1e20', '1e400', '-0', '"\\u0000"', '"é"', '"' + 'a'.repeat(300) + '"', '[0,1,2]', '[0]', '["0","1"]', '[0.5,-1]', '[-2,0]', '"pending"', '"active"', '"ended"', '"o:a,b"', '"a"', '"o:a,"', '1800000060.5', '1800000060.0', '253402300800', '8640000000001'];
const CLAIMS = ['iss', 'sub', 'sid', 'iat', 'nbf', 'exp', 'jti', 'azp', 'aud', 'v', 'sts', 'fva', 'act', 'o', 'org_id', 'org_slug', 'org_role', 'org_permissions', 'fea', 'pla', 'custom'];
const O_CLAIMS = ['id', 'slg', 'rol', 'per', 'fpm'];

// === one case ===
// Each maker returns { token | authorization, cookie, tags, via }.
const makers = {
  plain: instance => ({ token: signed(object(shuffled(goodHeader())), object(shuffled(goodClaims(instance)))), tags: [] }),
  claim: instance => {
    const claims = goodClaims(instance);
    const tags = [];
    for (let i = chance(0.2) ? 2 : 1; i > 0; i--) {
      const name = pick(CLAIMS);
      const raw = chance(0.1) ? undefined : pick(ODD);
      set(claims, name, raw);
      tags.push(`claim:${name}`);
      if (raw === '1e400') tags.push('overflow');
    }
    return { token: signed(object(goodHeader()), object(claims)), tags };
  },
  organization: instance => {
    const claims = goodClaims(instance);
    const o = [['id', '"org_1"'], ['slg', '"acme"'], ['rol', '"admin"'], ['per', '"read,write"'], ['fpm', '"3"']];
    const name = pick(O_CLAIMS);
    const raw = chance(0.1) ? undefined : pick(ODD);
    set(o, name, raw);
    set(claims, 'v', '2');
    set(claims, 'fea', '"o:invoices"');
    set(claims, 'o', object(o));
    return { token: signed(object(goodHeader()), object(claims)), tags: ['claim:o', ...(raw === '1e400' ? ['overflow'] : [])] };
  },
  time: instance => {
    const claims = goodClaims(instance);
    const edge = pick([-6, -5, -4, 0, 4, 5, 6]);
    set(claims, pick(['exp', 'nbf', 'iat']), String(NOW + edge));
    return { token: signed(object(goodHeader()), object(claims)), tags: [], skewMs: pick([5000, 5000, 0, 1000]), nudgeMs: pick([-1, 0, 1]) };
  },
  header: instance => {
    const header = goodHeader();
    const tags = [];
    const change = (name, raws, tag) => () => {
      set(header, name, pick(raws));
      tags.push(tag);
    };
    pick([
      change('alg', ['"none"', '"HS256"', '"RS384"', '"RS512"', '"PS256"', '"ES256"', '"rs256"', 'null', '1', '""', undefined], 'header:alg'),
      change('typ', ['"jwt"', '"JWS"', '""', 'null', '1', '["JWT"]', undefined, '"application/jwt"'], 'header:typ'),
      change('cat', ['"cl_x"', '""', 'null', '1', '[]', JSON.stringify(CATEGORY.template)], 'header:cat'),
      change('crit', ['["b64"]', '[]', 'null', '"exp"'], 'header:crit'),
      change(pick(['jwk', 'jku', 'x5u', 'x5c', 'b64', 'zip', 'more']), ['{"kty":"oct","k":"AA"}', '"https://evil.example"', 'false'], 'header:ignored'),
      change('kid', ['"ins_other"', '1', 'null', '""', undefined], 'header:kid'),
    ])();
    return { token: signed(object(header), object(goodClaims(instance))), tags };
  },
  form: instance => {
    const header = object(goodHeader());
    const payload = object(goodClaims(instance));
    const good = signed(header, payload);
    const [h, p, s] = good.split('.');
    const raw = bytes => {
      const input = `${h}.${Buffer.from(bytes).toString('base64url')}`;
      return `${input}.${rsaSign('sha256', Buffer.from(input), ours.privateKey).toString('base64url')}`;
    };
    const [token, tag] = pick([
      () => ['', 'form:empty'],
      () => [`${h}.${p}`, 'form:parts'],
      () => [`${good}.${s}`, 'form:parts'],
      () => [`.${p}.${s}`, 'form:parts'],
      () => [`${h}..${s}`, 'form:parts'],
      () => [`${h}.${p}.`, 'form:parts'],
      () => [`${h}.${p}.${s}==`, 'form:padding'],
      () => [`${h}.${p}.${s.slice(0, -1)}`, 'form:signature'],
      () => [`${h}.${p}.${s}A`, 'form:signature'],
      () => [`${h}.${p}.${s.slice(0, 10)} ${s.slice(10)}`, 'form:space'],
      () => [`${h}.${p}.${s}\n`, 'form:space'],
      () => [`${h}.${p}.${s.replace(/.$/, 'é')}`, 'form:alphabet'],
      () => [`${h}.${p}.${s.replaceAll('-', '+').replaceAll('_', '/')}`, 'form:alphabet'],
      () => [signed('[]', payload), 'form:json'],
      () => [signed(header, '[]'), 'form:json'],
      () => [signed(header, 'null'), 'form:json'],
      () => [signed(header, '"x"'), 'form:json'],
      () => [signed(header, payload + ' '), 'form:json_space'],
      () => [signed(header, payload + '{}'), 'form:json'],
      () => [signed(header, payload.slice(0, -1)), 'form:json'],
      () => [signed(header, '\ufeff' + payload), 'form:bom'],
      () => [signed('\ufeff' + header, payload), 'form:bom'],
      () => [signed(header, payload.replace('{', '{"custom2":"\\ud800",')), 'form:surrogate'],
      () => [signed(header, payload.replace('{', '{"custom2":1e400,')), 'overflow'],
      () => [signed(header, payload.replace('{', `{"custom2":${'['.repeat(300)}${']'.repeat(300)},`)), 'form:depth'],
      () => [raw(Buffer.concat([Buffer.from(payload.slice(0, -1) + ',"custom2":"'), Buffer.from([0xff, 0xfe]), Buffer.from('"}')])), 'form:utf8'],
      () => [signed(header, payload.replace('{', `{"custom2":"${'x'.repeat(17000)}",`)), 'form:large'],
    ])();
    return { token, tags: [tag], via: 'verifyToken' };
  },
  duplicate: instance => {
    const header = object(goodHeader());
    const payload = object(goodClaims(instance));
    const [token, tag] = pick([
      () => [signed(header, payload.replace('"sub":', '"sub":"user_other","sub":')), 'duplicate'],
      () => [signed(header, payload.replace('"sub":', '"s\\u0075b":"user_other","sub":')), 'duplicate'],
      () => [signed(header, payload.replace('{', '{"exp":1,')), 'duplicate'],
      () => [signed(header, payload.replace('{', '{"custom2":{"a":1,"a":2},')), 'duplicate'],
      () => [signed(header, payload.replace('{', '{"custom2":1,"custom2":1,')), 'duplicate'],
      () => [signed(header.replace('{', '{"kid":"ins_0",'), payload), 'duplicate'],
      () => [signed(header.replace('{', '{"alg":"none",'), payload), 'duplicate'],
    ])();
    return { token, tags: [tag] };
  },
  signature: instance => {
    const header = object(goodHeader());
    const payload = object(goodClaims(instance));
    const good = signed(header, payload);
    const [h, p, s] = good.split('.');
    const flipped = Buffer.from(s, 'base64url');
    flipped[below(flipped.length)] ^= 1 << below(8);
    const other = b64(object(goodClaims(instance)));
    const token = pick([
      () => `${h}.${p}.${flipped.toString('base64url')}`,
      () => signed(header, payload, stranger.privateKey),
      () => (other === p ? `${h}.${p}.${flipped.toString('base64url')}` : `${h}.${other}.${s}`),
      () => `${h}.${p}.${createHmac('sha256', pem).update(`${h}.${p}`).digest('base64url')}`,
      () => `${h}.${p}.${b64(Buffer.alloc(256))}`,
    ])();
    return { token, tags: ['signature'] };
  },
  class: instance => {
    const header = goodHeader();
    const claims = goodClaims(instance);
    const tag = pick(['template', 'template_old', 'm2m', 'm2m_sub', 'oauth', 'handshake', 'no_sub']);
    if (tag === 'template') set(header, 'cat', JSON.stringify(CATEGORY.template));
    if (tag === 'template_old') {
      set(header, 'cat', undefined);
      for (const name of ['sid', 'v', 'o', 'fea', 'pla', 'sts', 'fva']) set(claims, name, undefined);
    }
    if (tag === 'm2m') set(header, 'cat', JSON.stringify(CATEGORY.m2m));
    if (tag === 'm2m_sub') set(claims, 'sub', '"mch_1"');
    if (tag === 'oauth') set(header, 'typ', pick(['"at+jwt"', '"application/at+jwt"']));
    if (tag === 'handshake') claims.splice(0, claims.length, ['handshake', '["__session=x"]']);
    if (tag === 'no_sub') set(claims, 'sub', undefined);
    return { token: signed(object(header), object(claims)), tags: [`class:${tag}`] };
  },
  issuer: instance => {
    const claims = goodClaims(instance);
    set(claims, 'iss', pick(['"https://clerk.other.com"', `"https://${instance.host}/"`, `"http://${instance.host}"`, `"https://${instance.host.toUpperCase()}"`, '""', undefined, 'null', '1']));
    return { token: signed(object(goodHeader()), object(claims)), tags: ['claim:iss'] };
  },
  pending: instance => {
    const claims = goodClaims(instance);
    set(claims, 'sts', '"pending"');
    return { token: signed(object(goodHeader()), object(claims)), tags: [] };
  },
  carrier: instance => {
    const make = () => {
      const claims = goodClaims(instance);
      set(claims, 'azp', '"https://app.example.com"');
      if (chance(0.2)) set(claims, 'exp', String(NOW - pick([1, 10, 30])));
      if (chance(0.2)) set(claims, 'iss', pick(['"https://clerk.other.com"', undefined]));
      return signed(object(goodHeader()), object(claims));
    };
    const suffix = suffixOf(instance.key);
    const uat = () => pick(['0', String(NOW - 100), String(NOW - 20), String(NOW + 5), '', 'abc']);
    const cookies = [];
    if (chance(0.6)) cookies.push(`__session=${pick([make, make, make, () => 'junk', () => ''])()}`);
    if (chance(0.6)) cookies.push(`__client_uat=${uat()}`);
    if (chance(0.6)) cookies.push(`__session_${suffix}=${pick([make, make, make, () => 'junk'])()}`);
    if (chance(0.6)) cookies.push(`__client_uat_${suffix}=${uat()}`);
    if (instance === instances.development) cookies.push('__clerk_db_jwt=dvb_x', `__clerk_db_jwt_${suffix}=dvb_x`);
    if (chance(0.1)) cookies.push(`__session_other123=${make()}`);
    if (chance(0.1)) cookies.push('theme=dark', 'a%20b=c%3Bd');
    const tags = ['carrier'];
    let authorization;
    if (chance(0.45)) {
      const [value, tag] = pick([
        () => [`Bearer ${make()}`],
        () => [make()],
        () => ['Basic dXNlcjpwYXNz'],
        () => ['Bearer'],
        () => [`Bearer  ${make()}`, 'carrier:spaces'],
        () => [`Bearer ${make()} x`, 'carrier:more'],
        () => [`Bearer ${make()}, Bearer ${make()}`],
      ])();
      authorization = value;
      if (tag) tags.push(tag);
    }
    const noParties = chance(0.05);
    if (noParties) tags.push('carrier:no_parties');
    return { authorization: authorization ? [authorization] : [], cookie: cookies.length ? [shuffled(cookies).join('; ')] : [], tags, parties: noParties ? [] : ['https://app.example.com'] };
  },
};
const weights = { plain: 22, claim: 25, organization: 6, time: 8, header: 8, form: 7, duplicate: 3, signature: 3, class: 4, issuer: 2, pending: 1, carrier: 18 };
const groups = Object.entries(weights).flatMap(([group, weight]) => Array(weight).fill(group));

// === asking the SDK ===
const clients = Object.fromEntries(
  Object.entries(instances).map(([name, { key }]) => [name, createClerkClient({ publishableKey: key, secretKey: 'sk_test_x', jwtKey: pem })]),
);
const factsOf = auth => ({
  user_id: auth.userId,
  session_id: auth.sessionId,
  organization_id: auth.orgId ?? null,
  organization_slug: auth.orgSlug ?? null,
  organization_role: auth.orgRole ?? null,
  organization_permissions: auth.orgPermissions ?? null,
  factor_ages: auth.factorVerificationAge ?? null,
  actor: auth.actor?.sub ?? null,
});
// === questions about an accepted session, as has() takes them; with chance of their own, so that the
// cases stay what they are ===
const QUESTIONS_EACH = 3;
const luck = chanceOf(Number(args.seed) + 0x9e3779b9);
const oddly = name => luck.pick([name, name, name, name, name, name, name, name, `org:${name}`, `org:org:${name}`, name.replace(/^(org:)*/, ''), name.toUpperCase(), `${name} `, `org: ${name}`, `${name}:x`, `:${name}`]);
const scoped = list => (typeof list === 'string' ? list.split(',') : []).map(each => each.trim().replace(/^[a-z]*:/, '')).filter(Boolean);
const entitlement = held => {
  const slug = luck.chance(0.7) && held.length ? luck.pick(held) : luck.pick([...slugs, 'gold', 'free', 'pro', 'org', 'user', 'o', '']);
  return luck.pick([slug, slug, slug, slug, slug, slug, `o:${slug}`, `org:${slug}`, `organization:${slug}`, `u:${slug}`, `user:${slug}`, `uo:${slug}`, `x:${slug}`, `org:${slug}:more`, 'org:', 'user:', ':']);
};
const stepUp = () =>
  luck.chance(0.4)
    ? luck.pick(['strict_mfa', 'strict', 'moderate', 'lax', 'loose', ''])
    : { level: luck.pick(['first_factor', 'second_factor', 'multi_factor', 'third_factor']), afterMinutes: luck.pick([1, 3, 4, 5, 6, 10, 11, 1440, 1441, 0.5, 3.5, 0, -1, 1e15]) };
const question = auth => {
  const asked = {};
  const claims = auth.sessionClaims ?? {};
  const held = Array.isArray(auth.orgPermissions) && auth.orgPermissions.length ? auth.orgPermissions : ['org:invoices:read'];
  const ways = {
    permission: () => (luck.chance(0.85) ? oddly(luck.pick(held)) : luck.pick(['org:sys_memberships:read', 'sys_profile:manage', 'org:', '', 'org:a', 'a:b'])),
    role: () => (luck.chance(0.85) ? oddly(auth.orgRole || 'org:admin') : luck.pick(['admin', 'org:member', 'org:', '', 'member'])),
    feature: () => entitlement(scoped(claims.fea)),
    plan: () => entitlement(scoped(claims.pla)),
    reverification: stepUp,
  };
  for (let i = luck.pick([0, 1, 1, 1, 1, 1, 1, 2, 2, 2, 3, 4]); i > 0; i--) {
    const way = luck.pick(Object.keys(ways));
    asked[way] = ways[way]();
  }
  return { asked, allowed: auth.has(asked) };
};
const ask = async (name, made, options) => {
  try {
    if (made.via === 'verifyToken') {
      await verifyToken(made.token, { jwtKey: pem, ...options });
      return { accepted: true, facts: null };
    }
    const headers = new Headers();
    if (made.token !== undefined) headers.set('authorization', `Bearer ${made.token}`);
    for (const value of made.authorization ?? []) headers.append('authorization', value);
    for (const value of made.cookie ?? []) headers.append('cookie', value);
    // Not a document, so that a handshake is a plain "signed out" with the same reason.
    headers.set('sec-fetch-dest', 'empty');
    const state = await clients[name].authenticateRequest(new Request('https://app.example.com/api', { headers }), { ...options, jwtKey: pem });
    if (!state.isAuthenticated) return { accepted: false, reason: state.reason ?? 'signed-out', message: state.message ?? '' };
    const auth = state.toAuth();
    if (!auth?.userId) return { accepted: false, reason: 'pending' };
    return { accepted: true, facts: factsOf(auth), questions: Array.from({ length: QUESTIONS_EACH }, () => question(auth)) };
  } catch (error) {
    return { accepted: false, reason: error.reason ?? 'throws', message: String(error.message).slice(0, 200) };
  }
};

const lines = [JSON.stringify({ pem, instances, seed: Number(args.seed) })];
const count = Number(args.cases);
for (let id = 0; id < count; id++) {
  const group = pick(groups);
  const name = pick(['production', 'production', 'development']);
  const made = makers[group](instances[name]);
  nowMs = NOW * 1000 + (made.nudgeMs ?? 0);
  const parties = made.parties ?? (chance(0.85) ? pick([[], [], ['https://app.example.com', 'http://localhost:3000']]) : pick([['https://app.example.com'], ['https://APP.example.com'], ['https://app.example.com/']]));
  const audiences = chance(0.25) ? pick([['api'], ['web', 'x']]) : [];
  const skewMs = made.skewMs ?? 5000;
  const options = { clockSkewInMs: skewMs };
  if (parties.length) options.authorizedParties = parties;
  if (audiences.length) options.audience = audiences;
  const sdk = await ask(name, made, options);
  lines.push(JSON.stringify({
    id, group, instance: name, token: made.token, authorization: made.authorization, cookie: made.cookie,
    authorized_parties: parties, audiences, clock_skew_ms: skewMs, now_ms: nowMs, tags: made.tags, sdk,
  }));
}
writeFileSync(args.out, lines.join('\n') + '\n');
process.stdout.write(`${count} cases, seed ${args.seed}\n`);
