// Contrast of every pair of colours in use, as Chromium resolves them. ALL=1 lists the lowest ratio of each kind.
import { check, launch, url } from './lib.mjs';

// Runs in the page. Returns [name, ratio, least] triples.
function pairs() {
  const pixel = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const probe = document.body.appendChild(document.createElement('i'));
  const rgb = colour => {
    probe.style.color = '';
    probe.style.color = colour;
    pixel.clearRect(0, 0, 1, 1);
    pixel.fillStyle = getComputedStyle(probe).color;
    pixel.fillRect(0, 0, 1, 1);
    return [...pixel.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const luminance = ([r, g, b]) => {
    const linear = v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
    return .2126 * linear(r) + .7152 * linear(g) + .0722 * linear(b);
  };
  const ratio = (a, b) => {
    const [low, high] = [luminance(rgb(a)), luminance(rgb(b))].sort((x, y) => x - y);
    return (high + .05) / (low + .05);
  };
  const v = name => `var(--${name})`, tint = (name, percent) => `color-mix(in oklab,var(--${name}) ${percent}%,var(--card))`;
  const out = [];
  for (const text of ['ink', 'ink2', 'ink3', 'acc', 'ok', 'warn', 'bad'])
    for (const ground of ['card', 'bg', 'sunk']) out.push([`text ${text} on ${ground}`, ratio(v(text), v(ground)), 4.5]);
  for (const state of ['acc', 'ok', 'warn', 'bad']) {
    out.push([`badge ${state}`, ratio(v(state), tint(state, 13)), 4.5], [`figure ${state} on card`, ratio(v(state), v('card')), 3]);
    for (const text of ['ink', 'ink2', 'ink3', 'acc']) out.push([`${text} on note ${state}`, ratio(v(text), tint(state, 12)), 4.5]);
  }
  out.push(['button text', ratio(v('on'), v('acc')), 4.5], ['segment on', ratio(v('card'), v('ink')), 4.5], ['badge ink2 on sunk', ratio(v('ink2'), v('sunk')), 4.5],
    ['control border on card', ratio(v('line2'), v('card')), 3], ['control border on bg', ratio(v('line2'), v('bg')), 3], ['focus ring on bg', ratio(v('acc'), v('bg')), 3]);
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  svg.setAttribute('class', 'lane');
  const bar = document.body.appendChild(svg).appendChild(document.createElementNS('http://www.w3.org/2000/svg', 'rect'));
  for (const tone of ['', ' v']) for (let hue = 0; hue < 12; hue++) {
    bar.setAttribute('class', `d${hue}${tone}`);
    const fill = getComputedStyle(bar).fill;
    out.push([`text on digest d${hue}${tone}`, ratio(v('on'), fill), 4.5], [`digest d${hue}${tone} on card`, ratio(fill, v('card')), 3]);
  }
  for (const tick of ['t', 't2', 't3']) {
    bar.setAttribute('class', tick);
    out.push([`tick ${tick} on card`, ratio(getComputedStyle(bar).fill, v('card')), 3]);
  }
  return out;
}

const browser = await launch();
const lowest = {};
let count = 0, low = 0;
for (const colorScheme of ['light', 'dark']) {
  const context = await browser.newContext({ colorScheme, bypassCSP: true });
  const page = await context.newPage();
  await page.goto(url('home'));
  for (const [name, value, least] of await page.evaluate(pairs)) {
    count++;
    if (value < least) { low++; console.log('LOW ', colorScheme, name, value.toFixed(2), '<', least); }
    const kind = `${colorScheme} ${name.replace(/ d\d+/, '').replace(/ (acc|ok|warn|bad)\b/, '')}`;
    if (!(kind in lowest) || value < lowest[kind]) lowest[kind] = value;
  }
  await context.close();
}
if (process.env.ALL) for (const kind in lowest) console.log(kind.padEnd(36), lowest[kind].toFixed(2));
check(low === 0, `${count} pairs of colours, ${low} too low`);
await browser.close();
