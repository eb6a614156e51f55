// Makes situations of a browser's cookies, asks Clerk's own SDK what becomes of each, and writes one JSON
// line per situation.
//
//   node handshake.mjs --cases 4000 --seed 1 --out cases.jsonl
//
// The first line describes the instances; tests/it/handshake/oracle.rs reads the rest and asks this crate.
// Same seed, same situations (the keys are new in each run: no verdict depends on them).

import { createClerkClient } from '@clerk/backend';
import { createHash, generateKeyPairSync, sign as rsaSign } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';

import { chanceOf } from './chance.mjs';

const { values: args } = parseArgs({
  options: {
    cases: { type: 'string', default: '4000' },
    seed: { type: 'string', default: '1' },
    out: { type: 'string', default: 'cases.jsonl' },
  },
});

const { below, pick, chance } = chanceOf(Number(args.seed));

// === time stands still ===
const NOW = 1_800_000_000;
const RealDate = Date;
globalThis.Date = class extends RealDate {
  constructor(...given) {
    super(...(given.length === 0 ? [NOW * 1000] : given));
  }
  static now() {
    return NOW * 1000;
  }
};
// Nothing leaves this machine, and what the SDK logs is no concern here.
globalThis.fetch = async () => new Response('{}', { status: 500 });
console.log = console.info = console.warn = console.error = () => {};

// === keys, instances, tokens ===
const rsa = () => generateKeyPairSync('rsa', { modulusLength: 2048 });
const ours = rsa();
const stranger = rsa();
const pem = ours.publicKey.export({ type: 'spki', format: 'pem' });
const keyOf = (prefix, host) => prefix + btoa(`${host}$`).replace(/=+$/, '');
const instances = {
  production: { host: 'clerk.example.com', key: keyOf('pk_live_', 'clerk.example.com') },
  development: { host: 'happy-otter-12.clerk.accounts.dev', key: keyOf('pk_test_', 'happy-otter-12.clerk.accounts.dev') },
};
const suffixOf = key =>
  createHash('sha1').update(key).digest('base64').replaceAll('+', '-').replaceAll('/', '_').slice(0, 8);
const b64 = value => Buffer.from(JSON.stringify(value)).toString('base64url');
const signed = (header, payload, key = ours.privateKey) => {
  const input = `${b64(header)}.${b64(payload)}`;
  return `${input}.${rsaSign('sha256', Buffer.from(input), key).toString('base64url')}`;
};
const HEADER = { alg: 'RS256', kid: 'ins_1', typ: 'JWT', cat: 'cl_B7d4PD111AAA' };
const session = (instance, more = {}, header = {}, key) => {
  const iat = NOW - below(50);
  const claims = {
    iss: `https://${instance.host}`, sub: 'user_2abc', sid: 'sess_A', azp: 'https://app.example.com',
    iat, nbf: iat - 10, exp: iat + 60, v: 2, ...more,
  };
  return signed({ ...HEADER, ...header }, claims, key);
};
const old = () => {
  const iat = NOW - pick([66, 80, 3600]);
  return { iat, nbf: iat - 10, exp: iat + 60 };
};
const sessions = (instance, tags) => [
  ...Array(6).fill(() => session(instance)),
  ...Array(5).fill(() => session(instance, old())),
  () => session(instance, { nbf: NOW + pick([3, 60]) }),
  () => session(instance, { iat: NOW + pick([3, 60]) }),
  () => (tags.push('no_iat'), session(instance, { iat: undefined })),
  () => session(instance, { azp: 'https://evil.example' }),
  () => session(instance, { ...old(), azp: 'https://evil.example' }),
  () => session(instance, {}, {}, stranger.privateKey),
  () => session(instance, old(), {}, stranger.privateKey),
  () => session(instance, {}, { cat: 'cl_B7d4PD222AAA' }),
  () => session(instance, old(), { cat: 'cl_B7d4PD222AAA' }),
  () => session(instance, { ...old(), sub: 'mch_1' }, { cat: undefined }),
  () => 'junk',
  () => 'a.b.c',
  () => '',
];
const uats = [
  ...Array(3).fill(() => String(NOW - 100)),
  () => String(NOW - 25),
  () => String(NOW - 4000),
  () => String(NOW + 5),
  () => '0',
  () => '0',
  () => '',
  () => 'abc',
];
const targets = ['/', '/', '/a/b', '/a?b=c', '/a?b=c%20d&e=+', '/a?b=%2F%3F%26', '/?q=%C3%A4~*-._!\'()', '/a?__dev_session=x&b=1', '/a?b', '/a?b=&c==d', '/?a=1&a=2', '/?redirect_url=https%3A%2F%2Fevil.example', '/a?'];
const documents = [
  ...Array(8).fill({ 'sec-fetch-dest': 'document' }),
  { 'sec-fetch-dest': 'iframe' },
  ...Array(3).fill({ accept: 'text/html,application/xhtml+xml' }),
  { 'sec-fetch-dest': 'empty', accept: 'text/html' },
  { 'sec-fetch-dest': 'empty' },
  { accept: 'application/json, text/html' },
  { accept: '*/*' },
  {},
];

const situation = name => {
  const instance = instances[name];
  const suffix = suffixOf(instance.key);
  const tags = [];
  const cookies = [];
  const put = (cookie, value) => cookies.push(`${cookie}=${value}`);
  const foreign = () => session({ host: 'clerk.other.com' });
  if (chance(0.72)) put('__session', chance(0.08) ? foreign() : pick(sessions(instance, tags))());
  if (chance(0.72)) put('__client_uat', pick(uats)());
  if (chance(0.45)) put(`__session_${suffix}`, pick(sessions(instance, tags))());
  if (chance(0.45)) put(`__client_uat_${suffix}`, pick(uats)());
  if (chance(0.12)) put(`__refresh_${suffix}`, 'r');
  if (chance(0.06)) put('__refresh', 'r');
  if (chance(0.05)) put('theme', 'dark');
  if (chance(0.4)) put('__clerk_redirect_count', pick(['0', '1', '1', '2', '2', '3', '3', '4', 'x', '2.5', '-1']));
  let target = pick(targets);
  if (name === 'development') {
    if (chance(0.9)) put('__clerk_db_jwt', 'dvb_plain');
    if (chance(0.9)) put(`__clerk_db_jwt_${suffix}`, 'dvb_suffixed');
    if (chance(0.06)) target += `${target.includes('?') ? '&' : '?'}__clerk_db_jwt=dvb_query`;
  } else if (chance(0.05)) put('__clerk_db_jwt', 'dvb_plain');
  const headers = { ...pick(documents) };
  const method = pick([...Array(12).fill('GET'), 'POST', 'HEAD']);
  let authorization;
  if (chance(0.06)) {
    authorization = pick([
      () => `Bearer ${session(instance)}`,
      () => `Bearer ${session(instance, old())}`,
      () => 'Bearer junk',
      () => 'Basic dXNlcjpwYXNz',
    ])();
  }
  return { method, target, headers, authorization, cookies, tags };
};

// A browser that comes back from Clerk with a signed token.
const comesBack = name => {
  const instance = instances[name];
  const made = situation(name);
  made.authorization = undefined;
  made.method = 'GET';
  made.headers = { 'sec-fetch-dest': 'document' };
  const token = pick([
    ...Array(6).fill(() => session(instance)),
    () => session(instance, old()),
    () => session(instance, {}, {}, stranger.privateKey),
    () => session(instance, { azp: 'https://evil.example' }),
    () => (made.tags.push('carried:template'), session(instance, {}, { cat: 'cl_B7d4PD222AAA' })),
    () => '',
  ])();
  const directives = pick([
    [`__client_uat=${NOW}; Path=/; SameSite=Lax`, `__session=${token}; Path=/; SameSite=Lax`],
    [`__session_${suffixOf(instance.key)}=${token}; Path=/`, `__client_uat_${suffixOf(instance.key)}=${NOW}; Path=/`],
    ['__session=first; Path=/', `__session=${token}; Path=/; Secure`],
    ['__client_uat=0; Path=/'],
    [],
  ]);
  const handshake = pick([
    ...Array(8).fill(() => signed(HEADER, { handshake: directives })),
    () => signed({ ...HEADER, cat: undefined }, { handshake: directives }),
    () => signed({ ...HEADER, cat: 'cl_B7d4PD222AAA' }, { handshake: directives }),
    () => signed({ ...HEADER, typ: 'other' }, { handshake: directives }),
    () => signed(HEADER, { handshake: directives }, stranger.privateKey),
    () => 'junk',
  ])();
  made.tags.push('carried');
  if (name === 'development') {
    made.target += `${made.target.includes('?') ? '&' : '?'}__clerk_handshake=${handshake}&__clerk_help=1`;
  } else made.cookies.push(`__clerk_handshake=${handshake}`);
  return made;
};

const clients = Object.fromEntries(
  Object.entries(instances).map(([name, { key }]) => [name, createClerkClient({ publishableKey: key, secretKey: 'sk_test_x', jwtKey: pem })]),
);
const ask = async (name, made) => {
  const headers = new Headers(made.headers);
  if (made.authorization) headers.set('authorization', made.authorization);
  if (made.cookies.length) headers.set('cookie', made.cookies.join('; '));
  try {
    const request = new Request(`https://app.example.com${made.target}`, { method: made.method, headers });
    const options = { jwtKey: pem, clockSkewInMs: 5000, authorizedParties: ['https://app.example.com', 'http://localhost:3000'] };
    const said = await clients[name].authenticateRequest(request, options);
    return { status: said.status, reason: said.reason, location: said.headers.get('location'), cookies: said.headers.getSetCookie() };
  } catch (error) {
    return { status: 'throws', reason: String(error.message).slice(0, 200), location: null, cookies: [] };
  }
};

const lines = [JSON.stringify({ pem, instances })];
for (let id = 0; id < Number(args.cases); id++) {
  const name = pick(['production', 'development']);
  const made = chance(0.15) ? comesBack(name) : situation(name);
  lines.push(JSON.stringify({ id, instance: name, ...made, now: NOW, sdk: await ask(name, made) }));
}
writeFileSync(args.out, lines.join('\n') + '\n');
process.stdout.write(`${args.cases} cases, seed ${args.seed}\n`);
