// Pages of other origins in a real browser: they must neither change a trigger nor read anything.
// Usage: node forgery.mjs API GATEWAY ADMIN, three ports of a running `tagtrail up` on 127.0.0.1 with a trigger `shop`.
import http from 'node:http';
import { chromium } from 'playwright-core';

const [api, gateway, admin] = process.argv.slice(2).map(Number);
const FOREIGN = 'evil.example.net', REBOUND = 'rebind.example.net';
const PAUSE = '/v1/triggers/shop/pause';
// `write` changes something, or would if the server had such a route: the check stands before the routes.
const LISTENERS = [
  { name: 'api', port: api, read: '/v1/triggers', write: PAUSE },
  { name: 'gateway', port: gateway, read: '/', write: '/hooks/ci' },
  { name: 'admin page', port: admin, read: '/metrics', write: '/metrics' },
];
let failures = 0;

function check(passed, claim, ...found) {
  console.log(passed ? 'ok  ' : 'FAIL', claim, ...(passed ? [] : found));
  if (!passed) failures += 1;
}

// Programs send neither Origin nor Sec-Fetch-Site.
const call = async (path, method = 'GET') => (await fetch(`http://127.0.0.1:${api}${path}`, { method })).json();
const isPaused = async () => (await call('/v1/triggers/shop')).state === 'paused';
const resume = () => call('/v1/triggers/shop/resume', 'POST');

async function listen(serve) {
  const server = http.createServer(serve);
  await new Promise(listening => server.listen(0, '127.0.0.1', listening));
  return server.address().port;
}

// A page of another origin: it has no script of its own, the scripts below run in it.
const foreign = await listen((_, response) => {
  response.setHeader('content-type', 'text/html');
  response.end('<!doctype html><title>foreign</title>');
});

// The api as if it had no check: the host becomes the address, and the headers of browsers are dropped.
const unchecked = await listen((request, response) => {
  const headers = Object.entries(request.headers).filter(([name]) => name !== 'origin' && !name.startsWith('sec-fetch-'));
  const options = { port: api, host: '127.0.0.1', path: request.url, method: request.method };
  const forwarded = http.request({ ...options, headers: { ...Object.fromEntries(headers), host: `127.0.0.1:${api}` } }, answer => {
    response.writeHead(answer.statusCode, answer.headers);
    answer.pipe(response);
  });
  request.pipe(forwarded);
});

// --no-sandbox: Chromium needs it when it runs as root. The resolver stands for a hostile name server.
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking',
    `--host-resolver-rules=MAP ${FOREIGN} 127.0.0.1, MAP ${REBOUND} 127.0.0.1`],
});

async function inPage(address, act) {
  const page = await browser.newPage();
  try {
    const answer = await page.goto(address);
    return await act(page, answer);
  } finally {
    await page.close();
  }
}

// A script needs no answer to change something.
const post = url => fetch(url, { method: 'POST', mode: 'no-cors' }).then(() => null, String);
const read = url => fetch(url).then(answer => answer.text(), () => null);

// Sends a form, as a link or a script of the page can. Returns the status of the answer.
async function submit(page, url) {
  const [answer] = await Promise.all([
    page.waitForResponse(url),
    page.evaluate(action => {
      const form = Object.assign(document.createElement('form'), { method: 'post', action });
      document.body.append(form);
      form.submit();
    }, url),
  ]);
  return answer.status();
}

const origins = [`http://${FOREIGN}:${foreign}`, `http://127.0.0.1:${foreign}`, `http://localhost:${foreign}`];
for (const { name, port, read: question, write } of LISTENERS) {
  const at = `http://127.0.0.1:${port}`;
  for (const origin of origins) {
    const text = await inPage(origin, async page => {
      await page.evaluate(post, at + write);
      return page.evaluate(read, at + question);
    });
    check(text === null, `${name}: a script of ${origin} reads nothing`, text);
    const status = await inPage(origin, page => submit(page, at + write));
    check(status === 403, `${name}: a form of ${origin} gets 403`, status);
  }
  await inPage(`http://${REBOUND}:${port}${question}`, async (page, answer) => {
    check(answer.status() === 421, `${name}: a page of a rebound name gets 421`, answer.status());
    const text = await page.evaluate(read, question);
    check(text.includes('host_unknown'), `${name}: a script of a rebound name reads nothing`, text);
    await page.evaluate(post, write);
  });
}
check(!await isPaused(), 'no foreign page paused the trigger');

// The same requests succeed without the check, so the browser does not stop them by itself.
const at = `http://127.0.0.1:${unchecked}`;
for (const origin of origins) {
  await inPage(origin, page => page.evaluate(post, at + PAUSE));
  check(await isPaused(), `without the check, a script of ${origin} pauses`);
  await resume();
  const status = await inPage(origin, page => submit(page, at + PAUSE));
  check(status === 200 && await isPaused(), `without the check, a form of ${origin} pauses`, status);
  await resume();
}
await inPage(`http://${REBOUND}:${unchecked}/v1/triggers`, async page => {
  const text = await page.evaluate(read, '/v1/triggers');
  check(text.includes('shop'), 'without the check, a script of a rebound name reads', text);
});

// A page of the API itself may do both.
await inPage(`http://localhost:${api}/openapi.json`, async page => {
  const text = await page.evaluate(read, '/v1/triggers');
  await page.evaluate(post, PAUSE);
  check(text.includes('shop') && await isPaused(), 'a page of the API itself reads and pauses', text);
});

await browser.close();
process.exit(failures ? 1 : 0);
