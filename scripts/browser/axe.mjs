// axe-core on every page, at two widths, light and dark. INCOMPLETE=1 also lists what axe cannot decide.
import fs from 'node:fs';
import { createRequire } from 'node:module';
import { PAGES, check, launch, url } from './lib.mjs';

const source = fs.readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const RULES = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];

const browser = await launch();
let nodes = 0, passes = 0;
const SETS = [[1440, 'light'], [1440, 'dark'], [360, 'light'], [360, 'dark']];
for (const [width, colorScheme] of SETS) {
  // axe is injected into the page, so the CSP is bypassed here; behave.mjs runs under it.
  const context = await browser.newContext({ viewport: { width, height: 900 }, colorScheme, bypassCSP: true, reducedMotion: 'reduce' });
  for (const name of PAGES) {
    const page = await context.newPage();
    await page.goto(url(name));
    await page.evaluate(source);
    const result = await page.evaluate(rules => axe.run(document, { runOnly: rules }), RULES);
    passes += result.passes.length;
    for (const rule of result.violations) {
      nodes += rule.nodes.length;
      const examples = rule.nodes.slice(0, 2).map(node => `${node.target.join(' ')} | ${node.failureSummary.slice(0, 160)}`);
      console.log(width, colorScheme, name, rule.impact, rule.id, rule.nodes.length, examples);
    }
    if (process.env.INCOMPLETE && result.incomplete.length) {
      console.log('     incomplete', name, result.incomplete.map(rule => `${rule.id}:${rule.nodes.length}`).join(' '));
    }
    await page.close();
  }
  await context.close();
}
check(nodes === 0, `${PAGES.length} pages: ${nodes} violating nodes, ${passes} rules passed`);
await browser.close();
