// browser.mjs - pages in a headless Chromium, and what must be true of every one of them: no request leaves its origin,
// nothing is refused by its own content-security policy, no script fails, and axe finds nothing.
import assert from 'node:assert/strict';
import { mkdir, readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { chromium } from 'playwright-core';

const screenshots = new URL('../../build/web-screenshots/', import.meta.url).pathname;
const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

export async function openBrowser() {
  await mkdir(screenshots, { recursive: true });
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--disable-background-networking',
      '--disable-component-update', '--disable-sync', '--no-first-run'],
  });
}

/** Whether the server said how it is: 503 of /health/ready, which pages ask every few seconds, also while a killed process returns. */
const isReadiness = (r) => r.status() === 503 && r.url().endsWith('/health/ready');

/** A page of its own; `allowed` are statuses besides 2xx and 304 that its requests may meet. */
export async function openPage(browser, url, { allowed = [], ...options } = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, colorScheme: 'light', ...options });
  const page = await context.newPage();
  const faults = [];
  const bodies = [];
  const origin = new URL(url).origin;
  page.setDefaultTimeout(120000);
  await page.addInitScript(() => {
    window.refused = [];
    document.addEventListener('securitypolicyviolation', (e) => window.refused.push(`${e.violatedDirective} ${e.blockedURI}`));
  });
  page.on('request', (r) => {
    if (new URL(r.url()).origin !== origin) faults.push(`left its origin: ${r.url()}`);
    if (r.method() === 'POST' && /completions$/.test(r.url())) bodies.push(r.postDataJSON());
  });
  page.on('response', (r) => {
    if (!(r.ok() || r.status() === 304 || allowed.includes(r.status()) || isReadiness(r))) faults.push(`${r.status()} ${r.url()}`);
  });
  page.on('pageerror', (e) => faults.push(e.stack));
  page.on('console', (m) => {
    if (m.type() === 'error' && !/status of (\d+)/.test(m.text())) faults.push(m.text());
  });
  page.on('dialog', (d) => {
    faults.push(`a script ran: ${d.message()}`);
    d.dismiss();
  });
  await page.goto(url);
  return Object.assign(page, {
    bodies,
    /** The page has done no harm, and goes. */
    async done() {
      faults.push(...(await page.evaluate(() => window.refused)));
      await context.close();
      assert.deepEqual(faults, []);
    },
  });
}

export async function shoot(page, name, options = {}) {
  await page.screenshot({ path: `${screenshots}${name}.png`, animations: 'disabled', ...options });
}

/** No violation of WCAG 2.2 A and AA, nor of axe's best practices. */
export async function assertAccessible(page) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
  assert.deepEqual(violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.html).join(' | ')}`), []);
}

export async function assertNoSideways(page) {
  // Charts follow a new width some frames later.
  await page.waitForFunction(() => document.documentElement.scrollWidth <= innerWidth, null, { timeout: 10000 }).catch(() => {});
  const [content, window_] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  assert.ok(content <= window_, `${content} px wide in ${window_}`);
}
