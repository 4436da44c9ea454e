// Shared by the checks of the pages: the addresses, the browser, and a count of failures.
// Usage of each check: node CHECK.mjs SETTINGS, a JSON file with `api` and `gateway` (addresses), `secret` (of the source `ci`)
// and `pages` (address of each page by its name).
import fs from 'node:fs';
import { chromium } from 'playwright-core';

export const settings = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'));
export const base = settings.api;
export const PAGES = Object.keys(settings.pages);
export const url = page => base + settings.pages[page];

// --no-sandbox: Chromium needs it when it runs as root.
export const launch = () => chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});

export function check(passed, claim) {
  console.log(passed ? 'ok  ' : 'FAIL', claim);
  if (!passed) process.exitCode = 1;
}

// Reports a push to the gateway, as a script would.
export const push = (repository, tag, digest) => fetch(`${settings.gateway}/hooks/ci`, {
  method: 'POST',
  headers: { authorization: `Bearer ${settings.secret}`, 'content-type': 'application/json' },
  body: JSON.stringify({ repository, tag, digest }),
});

// A digest that no other push has.
export const someDigest = () => `sha256:${[...crypto.getRandomValues(new Uint8Array(32))].map(byte => byte.toString(16).padStart(2, '0')).join('')}`;
