// Behaviour under the real Content-Security-Policy: live feed, slider, keyboard, clock, theme, an act, no script, widths, sizes.
import { PAGES, base, check, launch, push, settings, someDigest, url } from './lib.mjs';

const browser = await launch();
const reports = [];
const open = async options => {
  const context = await browser.newContext(options);
  context.on('console', message => /Content Security Policy|Trusted Type/i.test(message.text()) && reports.push(message.text()));
  return context;
};
const until = async (holds, milliseconds) => {
  for (const end = Date.now() + milliseconds; Date.now() < end; await new Promise(next => setTimeout(next, 50))) if (await holds()) return true;
  return holds();
};

{ // The tag page.
  const context = await open({ viewport: { width: 1440, height: 900 }, timezoneId: 'Asia/Tokyo' });
  const page = await context.newPage();
  await page.goto(url('tag'));
  await page.waitForTimeout(200);
  await page.locator('input[type=range]').focus();
  for (let i = 0; i < 3; i++) await page.keyboard.press('PageDown');
  const output = await page.locator('as-of output').textContent();
  check(/revision \d+/.test(output), `the slider names a moment and a revision by keyboard: ${output}`);
  check(await page.locator('tr.hit').count() === 1, 'the row in force then is marked');
  check(/[?&]at=\d{4}-\d\d-\d\dT[\d:]+/.test(page.url()), `the address holds the moment: ${page.url().slice(base.length)}`);
  await page.reload();
  check(await page.locator('h1').count() === 1 && /as of|at /i.test(await page.locator('main').textContent()), 'the address of the moment opens the page of that moment');
  await page.keyboard.press('Control+k');
  check(await page.evaluate(() => document.activeElement.name) === 'q', 'Ctrl K moves the focus to the search field');
  await page.locator('[data-clock]').click();
  check(await page.locator('[data-clock]').textContent() === 'local time', 'the clock switches to local time');
  await page.goto(url('tag'));
  const named = await page.locator('th, h1, h2, .axis text, footer').allTextContents();
  check(named.some(text => text.includes('local time')) && !named.some(text => text.includes('UTC')), 'in local time no heading, axis or foot names UTC');
  const days = await page.locator('.trail tbody tr').evaluateAll(rows => rows.map(row => [row.querySelector('.b'), row.querySelector('time')])
    .map(([day, time]) => [day.hidden, day.textContent, new Date(time.dateTime).toLocaleString('en-GB', { weekday: 'short', day: '2-digit', month: 'short', timeZone: 'Asia/Tokyo' }).replace(',', '')]));
  check(days.every(([hidden, shown, day], place) => shown === day && hidden === (place > 0 && days[place - 1][1] === shown)), `each local day of the trail is shown once: ${days.filter(([hidden]) => !hidden).map(([, shown]) => shown)}`);
  await page.locator('[data-theme-next]').click();
  check(await page.evaluate(() => document.documentElement.dataset.theme) === 'light', 'the theme switches');
  await page.goto(url('triggers'));
  check(await page.evaluate(() => document.documentElement.getAttribute('data-theme')) === 'light', 'the server draws the chosen theme');
  await context.close();
}

{ // Eight tabs of the home page.
  const context = await open({ viewport: { width: 1440, height: 900 } });
  let feeds = 0;
  context.on('request', request => { if (request.url().includes('/v1/revisions')) feeds++; });
  const tabs = [];
  for (let i = 0; i < 8; i++) {
    const tab = await context.newPage();
    await tab.goto(url('home'), { timeout: 10000 });
    tabs.push(tab);
  }
  const rows = tab => tab.locator('[data-feed] .new').count();
  check(await until(async () => (await tabs[0].locator('.live').textContent()).includes('Live'), 5000), 'the home page says that it is live');
  const sent = Date.now(), digest = someDigest();
  await push('shop/web', 'edge', digest);
  const shown = await until(async () => (await tabs[3].locator('[data-feed]').textContent()).includes(digest.slice(7, 15)), 5000);
  check(shown, `a push is a row of the home page ${Date.now() - sent} ms later`);
  check(await until(async () => (await Promise.all(tabs.map(rows))).every(count => count > 0), 5000), 'each of 8 tabs shows the new revision');
  check(feeds === 1, `8 tabs share ${feeds} live connection`);
  await tabs[0].close();
  const before = await rows(tabs[1]);
  check(await until(async () => feeds === 2, 5000), `another tab leads when the first is closed: ${feeds} connections so far`);
  await tabs[1].waitForTimeout(500);
  await push('shop/web', 'edge', someDigest());
  check(await until(async () => await rows(tabs[1]) > before, 5000), 'the feed goes on in the tab that leads now');
  const tab = tabs[2], hold = tab.locator('[data-hold]');
  await tab.bringToFront();
  await hold.click();
  const held = await rows(tab);
  await push('shop/web', 'edge', someDigest());
  check(await until(async () => /Show \d+ new/.test(await hold.textContent()), 5000) && await rows(tab) === held, `pause holds new rows back: ${await hold.textContent()}`);
  await context.close();
}

{ // An act by keyboard: pause, and resume.
  const context = await open({ viewport: { width: 1440, height: 900 } });
  const page = await context.newPage();
  const state = async () => (await (await fetch(`${base}/v1/triggers/${settings.trigger}`)).json()).condition;
  for (const [act, holds] of [['pause', async () => await state() === 'paused'], ['resume', async () => await state() !== 'paused']]) {
    await page.goto(`${base}/triggers/${settings.trigger}`);
    const form = page.locator(`form[action$="/${act}"]`);
    await form.locator('[name=reason]').focus();
    await page.keyboard.type('checked by keyboard');
    await Promise.all([page.waitForNavigation(), page.keyboard.press('Enter')]);
    check(await until(holds, 5000), `${act} by keyboard: ${settings.trigger} is ${await state()}`);
    const back = page.url() === `${base}/triggers/${settings.trigger}`;
    check(back, `${act} leads back to the trigger: ${page.url().slice(base.length)} ${back ? '' : await page.locator('main').innerText()}`);
    if (!back) break;
  }
  await context.close();
}

{ // Without script.
  const context = await open({ javaScriptEnabled: false, viewport: { width: 1440, height: 900 } });
  const page = await context.newPage();
  await page.goto(url('tag'));
  check(await page.locator('.trail tbody tr').count() > 5, 'without script the trail is complete');
  for (const name of PAGES) {
    await page.goto(url(name));
    const dead = await page.locator('[data-clock]:visible, [data-copy]:visible, input[type=range]:visible, .live:visible').count();
    check(dead === 0 && await page.locator('h1').count() === 1, `without script ${name} shows nothing dead, and one h1`);
  }
  await context.close();
}

// 320 px is 1280 px at 400 %, 640 px is 1280 px at 200 % (WCAG 1.4.10).
for (const width of [320, 360, 640, 768, 820, 900, 1024, 1920]) {
  const context = await open({ viewport: { width, height: 800 } });
  const page = await context.newPage(), wide = [];
  for (const name of PAGES) {
    await page.goto(url(name));
    const [excess, widest] = await page.evaluate(() => {
      const { scrollWidth, clientWidth } = document.documentElement;
      const over = [...document.querySelectorAll('main *, footer *')].filter(element => element.getBoundingClientRect().right > clientWidth);
      return [scrollWidth - clientWidth, over.at(-1)?.outerHTML.slice(0, 150)];
    });
    if (excess > 0) wide.push(`${name} +${excess} ${widest}`);
  }
  check(wide.length === 0, `no page scrolls sideways at ${width} px ${wide}`);
  await context.close();
}

{ // Sizes, each page in a browser that has nothing yet.
  for (const name of PAGES) {
    const context = await open({ viewport: { width: 1440, height: 900 } });
    const page = await context.newPage();
    await page.goto(url(name));
    await page.waitForTimeout(200);
    const [sent, elements, stops] = await page.evaluate(() => [
      [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource').filter(entry => !entry.name.includes('/v1/'))]
        .reduce((sum, entry) => sum + entry.transferSize, 0),
      document.querySelectorAll('*').length,
      document.querySelectorAll('a[href], button, input:not([type=hidden]), select, summary').length,
    ]);
    check(sent < 25 * 1024 && elements < 1500 && stops < 120, `${name}: ${sent} bytes sent, ${elements} elements, ${stops} tab stops`);
    await context.close();
  }
}

check(reports.length === 0, `no report of the Content-Security-Policy ${reports.slice(0, 3)}`);
await browser.close();
