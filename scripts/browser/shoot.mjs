// Screenshots: node shoot.mjs SETTINGS FOLDER [PAGE,PAGE…]. SETS=1440-light,390-dark (default: four of each page).
import path from 'node:path';
import { PAGES, check, launch, url } from './lib.mjs';

const folder = process.argv[3], pages = process.argv[4]?.split(',') ?? PAGES;
if (!folder) throw new Error('usage: node shoot.mjs SETTINGS FOLDER [PAGE,PAGE…]');
const sets = (process.env.SETS ?? '1440-light,1440-dark,390-light,390-dark').split(',').map(set => set.split('-'));

const browser = await launch();
for (const [width, colorScheme] of sets) {
  const phone = +width < 500;
  const context = await browser.newContext({
    viewport: { width: +width, height: phone ? 844 : 900 }, deviceScaleFactor: phone ? 2 : 1, colorScheme, reducedMotion: 'reduce', timezoneId: 'UTC',
  });
  const page = await context.newPage(), errors = [];
  // A page that answers 404 on purpose is reported by the browser as an error of loading.
  page.on('console', message => ['error', 'warning'].includes(message.type()) && !/status of 404/.test(message.text()) && errors.push(message.text()));
  page.on('pageerror', error => errors.push(String(error)));
  for (const name of pages) {
    errors.length = 0;
    await page.goto(url(name), { waitUntil: 'load' });
    await page.waitForTimeout(120);
    await page.screenshot({ path: path.join(folder, `${name}-${width}-${colorScheme}.png`), fullPage: true });
    check(errors.length === 0, `${name} ${width} ${colorScheme} ${errors.slice(0, 3)}`);
  }
  await context.close();
}
await browser.close();
