// First contentful paint: the least of 12 loads of a page may be three times that of the login page. It is a ratio of one run, since
// absolute times mean little on a shared machine. More than twice is reported.
import { check, launch, url } from './lib.mjs';

const browser = await launch();
const context = await browser.newContext({ viewport: { width: 1440, height: 900 } });
const page = await context.newPage();
await page.goto(url('login'));
let least;
for (const name of ['login', 'home', 'repository', 'tag', 'reports', 'rollout']) {
  const paints = [];
  for (let i = 0; i < 12; i++) {
    await page.goto(url(name));
    await page.waitForTimeout(150);
    paints.push(await page.evaluate(() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? Infinity));
  }
  paints.sort((a, b) => a - b);
  least ??= paints[0];
  const ratio = paints[0] / least;
  const slow = ratio > 2 ? ', more than twice' : '';
  check(ratio <= 3, `${name}: least ${paints[0].toFixed(0)} ms (${ratio.toFixed(1)} x login${slow}), median ${paints[6].toFixed(0)}, most ${paints[11].toFixed(0)}`);
}
await browser.close();
