// A real Chromium goes through Clerk's handshake behind a real Envoy, against the offline Clerk: it is sent
// to sign in, signs in, comes back after its cookie has expired, and is signed out.
//
//   node tests/browser/handshake.mjs [path of clerk-authz]
//
// `make setup` installs what it needs, but for Chromium itself: CHROMIUM names one, else it is looked for on
// the path. Where something is missing it is named and the test skipped; with CI=true that is a failure.
// Screenshots are in target/browser. Prints, last, `N passed, N failed, N skipped`.

import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
const BINARY = resolve(process.argv[2] ?? join(ROOT, 'target/debug/clerk-authz'));
const SHOTS = join(ROOT, 'target/browser');
// Of everything that is waited for.
const PATIENCE_MS = 30_000;

const missing = (what, mend) => {
  const inCI = process.env.CI === 'true';
  const counted = inCI ? '0 passed, 1 failed, 0 skipped' : '0 passed, 0 failed, 1 skipped';
  console.log(`${inCI ? 'FAILED' : 'skipped'}: ${what} is missing: ${mend}\n${counted}`);
  process.exit(inCI ? 1 : 0);
};
const onPath = name => spawnSync('sh', ['-c', `command -v ${name}`], { encoding: 'utf8' }).stdout.trim();
const chromium = process.env.CHROMIUM || ['chromium', 'chromium-browser', 'google-chrome'].map(onPath).find(Boolean);
if (!chromium) missing('Chromium', "your distribution's chromium (apt-get install chromium), or CHROMIUM=PATH");
if (!existsSync(BINARY)) missing(BINARY, 'cargo build');
const python = join(ROOT, '.venv/bin/python');
if (!existsSync(python)) missing('.venv', 'make setup');
const { chromium: driver } = await import('playwright-core').catch(() => missing('playwright-core', 'make setup'));

let passed = 0;
let failed = 0;
const check = (name, holds, detail) => {
  if (holds) passed += 1;
  else {
    failed += 1;
    console.log(`  FAILED ${name}: ${JSON.stringify(detail)}`);
  }
};

// === the demo: Envoy, the service, the offline Clerk, an upstream that says what it received ===
const demo = spawn(python, [join(ROOT, 'scripts/demo-envoy.py'), '--free-ports', BINARY], { cwd: ROOT, stdio: ['ignore', 'pipe', 'inherit'] });
const ended = new Promise(done => demo.once('exit', code => done(code)));
const said = [];
const ready = (async () => {
  for await (const line of createInterface({ input: demo.stdout })) {
    said.push(line);
    if (line === 'Ctrl-C ends all of it.') return true;
  }
  return false;
})();
const limit = new Promise(done => setTimeout(() => done(false), PATIENCE_MS).unref());
let browser;
try {
  if (!(await Promise.race([ready, limit]))) throw new Error(`the demo did not start: ${said.join('\n')}`);
  const text = said.join('\n');
  const address = /^Open in a browser.*: (http:\S+\/page)$/m.exec(text)?.[1];
  const clerk = /curl -s "(http:\/\/127\.0\.0\.1:\d+)\/_emulator\/token/.exec(text)?.[1];
  const origin = new URL(address).origin;
  const world = (await (await fetch(`${clerk}/_emulator/world`)).json()).instances[0];

  mkdirSync(SHOTS, { recursive: true });
  browser = await driver.launch({ executablePath: chromium, headless: true, args: ['--no-sandbox', '--no-proxy-server'] });
  const context = await browser.newContext();
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  let seen = [];
  page.on('response', answer => seen.push([answer.status(), answer.url()]));
  const shot = name => page.screenshot({ path: join(SHOTS, `${name}.png`) });
  const cookie = async name => (await context.cookies(address)).find(each => each.name === name)?.value;
  const went = part => seen.some(([status, url]) => status === 307 && url.startsWith(`${clerk}/v1/client/handshake?`) && url.includes(part));
  const body = () => page.textContent('body');
  const open = async path => {
    seen = [];
    // The two seconds of the loop guard are over.
    await context.clearCookies({ name: '__clerk_redirect_count' });
    await page.goto(origin + path);
  };
  // In place of a minute that nobody waits for.
  const expire = async () => {
    const { sid } = JSON.parse(Buffer.from((await cookie('__session')).split('.')[1], 'base64url').toString());
    const made = await fetch(`${clerk}/_emulator/tokens`, {
      method: 'POST', headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ user: 'user_alice', session: sid, expired: true, authorized_party: origin }),
    });
    const { jwt } = await made.json();
    await context.addCookies([
      { name: '__session', value: jwt, url: address },
      { name: '__client_uat', value: '1', url: address },
    ]);
    return { sid, jwt };
  };

  await open('/page?tab=2');
  await shot('1-sent-to-sign-in');
  check('whom nothing names goes to Clerk first', went('__clerk_hs_reason=dev-browser-missing'), seen);
  check('who is signed out is at the sign-in page', page.url().startsWith(`${clerk}/sign-in?redirect_url=`), page.url());

  seen = [];
  await context.clearCookies({ name: '__clerk_redirect_count' });
  await page.click('#user_alice');
  await page.waitForURL(`${origin}/page?tab=2`);
  await shot('2-signed-in');
  check('who signs in comes back by the handshake', went('__clerk_hs_reason=dev-browser-sync'), seen);
  check('to the page, as who it is', (await body()).includes('"x-clerk-user-id": "user_alice"'), await body());
  check('at the address that was asked for', page.url() === `${origin}/page?tab=2`, page.url());

  const before = await expire();
  await open('/page/7?q=a%20b');
  await shot('3-renewed');
  check('who comes back after a minute goes to Clerk', went('__clerk_hs_reason=session-token-expired-refresh-'), seen);
  check('and lands on the page, signed in', (await body()).includes('"x-clerk-user-id": "user_alice"'), await body());
  check('with another token', ![undefined, '', before.jwt].includes(await cookie('__session')), 'the same');
  check('at its address', page.url().startsWith(`${origin}/page/7?q=a`) && !page.url().includes('__clerk'), page.url());
  await open('/page/8');
  check('and is not sent there again', !went('') && (await body()).includes('user_alice'), seen);

  await expire();
  const script = await page.evaluate(async () => (await fetch('/page/9', { redirect: 'manual' })).status);
  check('a script hears 401', script === 401, script);

  await fetch(`${clerk}/v1/sessions/${before.sid}/revoke`, { method: 'POST', headers: { authorization: `Bearer ${world.secret_key}` } });
  await open('/page');
  await shot('4-signed-out');
  check('whose session has ended is at the sign-in page', page.url().startsWith(`${clerk}/sign-in?`), page.url());
  check('without a session token', !(await cookie('__session')), 'there is one');
} catch (error) {
  check('it goes through', false, String(error.stack ?? error));
} finally {
  await browser?.close();
  demo.kill('SIGTERM');
  check('the demo ends', (await ended) === 0, 'another code');
}
console.log(`${passed} passed, ${failed} failed, 0 skipped`);
process.exit(failed > 0 ? 1 : 0);
