// The status page and the API's description.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { assertAccessible, assertNoSideways, openBrowser, openPage, shoot } from './browser.mjs';
import { startLlmd, until } from './servers.mjs';

const limit = { timeout: 200000 };
let browser, server;

before(async () => {
  [browser, server] = await Promise.all([openBrowser(), startLlmd({ settings: ['--tp-size', '2'] })]);
});
after(async () => {
  await browser.close();
  assert.equal(await server.stop(), 0);
});

/** A short request after the other, with time for others in between, until the test ends. */
function load(t) {
  let isOver = false;
  const done = (async () => {
    while (!isOver) {
      const answer = await fetch(`${server.url}v1/completions`, { method: 'POST', headers: { 'Content-Type': 'application/json' },
        body: JSON.stringify({ prompt: 'Once upon a time', max_tokens: 50, ignore_eos: true }) });
      await answer.text();
      await new Promise((resolve) => setTimeout(resolve, 150));
    }
  })();
  t.after(() => {
    isOver = true;
    return done;
  });
}

const chart = (page, title) => page.locator('.chart', { hasText: title });
const pixels = (page, title) => chart(page, title).locator('canvas').evaluate((c) => c.toDataURL());

test('the status page shows processes and ranks, and its charts move', limit, async (t) => {
  load(t);
  const page = await openPage(browser, `${server.url}ui/status`);
  await page.locator('#state[data-state=ready]').waitFor();
  assert.deepEqual(await page.locator('#processes th').allInnerTexts(), ['llmd', 'gateway', 'worker 0.0', 'worker 0.1']);
  assert.deepEqual(await page.locator('#processes .pill').allInnerTexts(), ['ready', 'ready', 'ready', 'ready']);
  await until(async () => /generated [1-9]/.test(await chart(page, 'Tokens per second').locator('.legend').innerText()));
  for (const title of ['Tokens per second', 'Time between tokens', 'One forward pass', 'Sequences', 'KV pages', 'Time to the first token']) {
    const before = await pixels(page, title);
    await until(async () => (await pixels(page, title)) !== before);
  }
  const tile = page.locator('.tile', { hasText: 'Tokens per second' }).locator('dd');
  await until(async () => /^[\d,]*[1-9]/.test(await tile.innerText()));
  assert.match(await chart(page, 'Time between tokens').locator('.plot').getAttribute('aria-label'), /median [\d.]+ (µs|ms|s)/);
  await page.done();
});

test('a killed worker appears as a restart, in words and as a mark', limit, async (t) => {
  load(t);
  const page = await openPage(browser, `${server.url}ui/status`);
  await until(async () => /generated [1-9]/.test(await chart(page, 'Tokens per second').locator('.legend').innerText()));
  process.kill((await server.process('worker 0.0')).pid, 'SIGKILL');
  await page.locator('#events li', { hasText: 'worker 0.0 was started again' }).waitFor();
  await page.locator('#processes tr', { hasText: 'worker 0.0' }).locator('td').nth(2).filter({ hasText: '1' }).waitFor();
  // The mark's colour is in no chart without one.
  await until(() => chart(page, 'Tokens per second').locator('canvas').evaluate((c) => {
    const { data } = c.getContext('2d').getImageData(0, 0, c.width, c.height);
    for (let i = 0; i < data.length; i += 4) if (data[i] > 180 && data[i + 1] < 70 && data[i + 2] < 70 && data[i + 3] > 200) return true;
    return false;
  }));
  await until(async () => /generated [1-9]/.test(await chart(page, 'Tokens per second').locator('.legend').innerText()));
  await assertAccessible(page);
  await shoot(page, 'status-light', { fullPage: true });
  await page.emulateMedia({ colorScheme: 'dark' });
  await assertAccessible(page);
  await shoot(page, 'status-dark', { fullPage: true });
  await page.setViewportSize({ width: 360, height: 740 });
  await assertNoSideways(page);
  await shoot(page, 'status-phone', { fullPage: true });
  await page.done();
});

test('the description of the API is a page', limit, async () => {
  const page = await openPage(browser, `${server.url}docs`);
  const route = page.locator('details', { hasText: '/v1/chat/completions' }).first();
  await route.locator('summary').click();
  await route.getByText('max_completion_tokens').waitFor();
  await assertAccessible(page);
  await shoot(page, 'docs-light');
  await page.setViewportSize({ width: 360, height: 740 });
  await assertNoSideways(page);
  await page.emulateMedia({ colorScheme: 'dark' });
  await shoot(page, 'docs-phone-dark');
  await page.done();
});
