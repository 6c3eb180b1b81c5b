// The chat page.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { after, before, test } from 'node:test';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { assertAccessible, assertNoSideways, openBrowser, openPage, shoot } from './browser.mjs';
import { bin, startLlmd, startProxy, startTold, until } from './servers.mjs';

const limit = { timeout: 200000 };
const killAt = 40; // tokens
let browser, demo, told;

before(async () => {
  [browser, demo, told] = await Promise.all([openBrowser(), startLlmd(), startTold()]);
});
after(async () => {
  await browser.close();
  assert.equal(await demo.stop(), 0);
  assert.equal(await told.stop(), 0);
});

const answers = (page) => page.locator('.message.assistant');
const textOf = (page, i = -1) => answers(page).nth(i).locator('.text').innerText();

async function ask(page, text) {
  await page.fill('#prompt', text);
  await page.press('#prompt', 'Enter');
}

/** Until `n` answers are there and none runs. */
async function ended(page, n = 1) {
  await page.waitForFunction((wanted) => document.querySelectorAll('.message.assistant:not(.running)').length === wanted &&
    !document.querySelector('.message.running') && !document.querySelector('#send').hidden, n);
}

async function openPanel(page) {
  if (await page.locator('#panel').isHidden()) await page.click('#open-panel');
}

async function setExact(page, name, value) {
  const box = page.locator(`#control-${name}`).locator('xpath=..').locator('input[type=number]');
  await box.fill(String(value));
  await box.blur();
}

test('the page greets, knows its model, and axe finds nothing', limit, async () => {
  const page = await openPage(browser, demo.url);
  await page.locator('#state[data-state=ready]').waitFor();
  assert.equal(await page.locator('#model').innerText(), 'stories-demo');
  assert.equal(await page.title(), 'stories-demo · llmd');
  assert.equal(await page.locator('#examples button').count(), 6);
  await assertAccessible(page);
  await shoot(page, 'chat-welcome-light');
  await page.done();
});

test('light and dark follow the system, until one is chosen', limit, async () => {
  const page = await openPage(browser, demo.url, { colorScheme: 'dark' });
  const shade = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const dark = await shade();
  await shoot(page, 'chat-welcome-dark');
  await assertAccessible(page);
  await page.click('#theme');
  assert.notEqual(await shade(), dark);
  await page.reload();
  assert.notEqual(await shade(), dark);
  await page.click('#theme');
  assert.equal(await shade(), dark);
  await page.done();
});

test('an answer comes piece by piece, with its figures at the end', limit, async () => {
  const page = await openPage(browser, told.url);
  const text = 'Here it comes. **Word** by word, as it is written.';
  await told.say(text);
  await told.step(20000);
  await page.evaluate(() => {
    window.lengths = new Set();
    new MutationObserver(() => window.lengths.add(document.querySelector('.assistant .text')?.innerText.length ?? 0))
      .observe(document.getElementById('messages'), { subtree: true, childList: true });
  });
  await ask(page, 'Hello');
  await ended(page);
  const seen = await page.evaluate(() => window.lengths.size);
  assert.ok(seen >= 4, `${seen} lengths seen`);
  assert.equal(await textOf(page), text.replaceAll('**', ''));
  assert.match(await answers(page).locator('.stats').innerText(), /^\d+ tokens · \d+ tokens\/s · first after .* m?s$/);
  assert.equal(await page.locator('#spoken').innerText().then((t) => t.replace(/\s+/g, ' ').trim()), text);
  await page.done();
});

for (const [name, act] of [['the button', (page) => page.click('#stop-answer')], ['Escape', (page) => page.keyboard.press('Escape')]])
  test(`${name} stops an answer, and nothing is computed any more`, limit, async () => {
    const page = await openPage(browser, told.url);
    await told.say('na '.repeat(140));
    await told.step(20000);
    await ask(page, 'Sing');
    await page.waitForFunction(() => document.querySelector('.message.assistant .text')?.innerText.startsWith('na na'));
    await act(page);
    await ended(page);
    await told.idle();
    const text = await textOf(page);
    assert.ok(text.length < 400, `${text.length} letters came`);
    assert.match(await answers(page).locator('.stats').innerText(), /stopped$/);
    await page.reload();
    assert.equal(await textOf(page), text);
    await page.done();
  });

test('answering again keeps the former answer', limit, async () => {
  const page = await openPage(browser, demo.url);
  await ask(page, 'Tell me a story about a dog.');
  await ended(page);
  const first = await textOf(page);
  await page.getByRole('button', { name: 'Answer again' }).click();
  await page.getByText('2 / 2').waitFor();
  await ended(page);
  assert.notEqual(await textOf(page), first);
  await page.getByRole('button', { name: 'The answer before' }).click();
  assert.equal(await textOf(page), first);
  await ask(page, 'And then?');
  await ended(page, 2);
  assert.deepEqual(page.bodies.at(-1).messages.map((m) => m.role), ['user', 'assistant', 'user']);
  assert.equal(page.bodies.at(-1).messages[1].content.replace(/\s+/g, ' ').trim(), first.replace(/\s+/g, ' ').trim());
  await page.done();
});

test('editing a message asks anew from there', limit, async () => {
  const page = await openPage(browser, demo.url);
  await ask(page, 'Tell me a story about a dog.');
  await ended(page);
  await ask(page, 'Thank you.');
  await ended(page, 2);
  await page.locator('.message.user').first().hover();
  await page.getByRole('button', { name: 'Edit this message' }).first().click();
  await page.getByLabel('Edit your message').fill('Tell me a story about a cat.');
  await page.keyboard.press('Enter');
  await ended(page, 1);
  assert.deepEqual(page.bodies.at(-1).messages, [{ role: 'user', content: 'Tell me a story about a cat.' }]);
  assert.equal(await page.locator('.message.user').count(), 1);
  await page.focus('#prompt');
  await page.keyboard.press('ArrowUp');
  await page.keyboard.press('Escape');
  assert.equal(await page.locator('.message.user .text').innerText(), 'Tell me a story about a cat.');
  await page.done();
});

test('conversations are kept over a reload, and can be left, opened and deleted', limit, async () => {
  const page = await openPage(browser, demo.url);
  await ask(page, 'Tell me a story about a boat.');
  await ended(page);
  const text = await textOf(page);
  await page.reload();
  assert.equal(await textOf(page), text);
  await page.click('#new');
  assert.equal(await answers(page).count(), 0);
  await ask(page, 'Tell me a story about a tree.');
  await ended(page);
  await shoot(page, 'chat-two-conversations');
  await page.getByRole('button', { name: 'Tell me a story about a boat.', exact: true }).click();
  assert.equal(await textOf(page), text);
  await page.getByRole('button', { name: 'Delete Tell me a story about a boat.' }).click();
  await page.locator('#confirm').getByRole('button', { name: 'Delete' }).click();
  await page.waitForFunction(() => document.querySelectorAll('#conversations li').length === 1);
  assert.equal(await answers(page).count(), 0);
  await openPanel(page);
  await page.click('#forget');
  await page.locator('#confirm').getByRole('button', { name: 'Delete' }).click();
  await page.waitForFunction(() => !document.querySelector('#conversations li'));
  assert.deepEqual(await page.evaluate(() => Object.keys(localStorage).filter((k) => k.startsWith('llmd.conversation.'))), []);
  await page.done();
});

test('a conversation left in the middle of an answer keeps what came, and other tabs see it', limit, async () => {
  const page = await openPage(browser, told.url);
  await told.say('na '.repeat(140));
  await told.step(20000);
  await ask(page, 'Sing');
  await page.waitForFunction(() => document.querySelector('.message.assistant .text')?.innerText.startsWith('na na'));
  await page.click('#new');
  await told.idle();
  await told.say('Short.');
  await ask(page, 'Speak');
  await ended(page);
  assert.equal(await textOf(page), 'Short.');
  const other = await page.context().newPage();
  await other.goto(told.url);
  await ask(other, 'Whisper');
  await ended(other);
  await page.waitForFunction(() => document.querySelectorAll('#conversations li').length === 3);
  assert.deepEqual(await page.locator('.entry').allInnerTexts(), ['Whisper', 'Speak', 'Sing']);
  await page.getByRole('button', { name: 'Sing', exact: true }).click();
  assert.match(await textOf(page), /^na na/);
  assert.match(await answers(page).locator('.stats').innerText(), /stopped$/);
  await page.locator('.message.user').hover();
  await page.getByRole('button', { name: 'Edit this message' }).click();
  await page.getByLabel('Edit your message').fill('Speak again');
  await page.getByRole('button', { name: 'Send', exact: true }).first().click();
  await ended(page);
  assert.equal(await textOf(page), 'Short.');
  await page.done();
});

test('system prompt and sampling controls reach the request', limit, async () => {
  const page = await openPage(browser, demo.url);
  await openPanel(page);
  await page.locator('#control-max_tokens[max="512"]').waitFor({ state: 'attached' }); // once the page knows its model
  for (const [name, min, max] of [['max_tokens', '256', '512'], ['temperature', '0.2', '2'], ['top_p', '0.1', '1']]) {
    const slider = page.locator(`#control-${name}`);
    assert.deepEqual([await slider.getAttribute('min'), await slider.getAttribute('max')], [min, max]); // 512: its context
  }
  await ask(page, 'Hello');
  await ended(page);
  assert.deepEqual(page.bodies[0], { model: 'stories-demo', stream: true, stream_options: { include_usage: true }, max_tokens: 256,
    temperature: 1, top_p: 0.95, messages: [{ role: 'user', content: 'Hello' }] });
  await page.fill('#system', 'You tell short stories.');
  await page.locator('#control-temperature').fill('0.6');
  await page.locator('#control-top_k').fill('40');
  for (const [name, value] of Object.entries({ max_tokens: 24, top_p: 0.9, min_p: 0.05, repetition_penalty: 1.1,
    presence_penalty: -0.5, frequency_penalty: 0.3 })) await setExact(page, name, value);
  await page.fill('#seed', '7');
  await page.fill('#stop', 'The end\n\nEnd.');
  await page.click('#new');
  await ask(page, 'Hello');
  await ended(page);
  const expected = { model: 'stories-demo', stream: true, stream_options: { include_usage: true }, max_tokens: 24, temperature: 0.6,
    top_p: 0.9, top_k: 40, min_p: 0.05, repetition_penalty: 1.1, presence_penalty: -0.5, frequency_penalty: 0.3, seed: 7,
    stop: ['The end', 'End.'],
    messages: [{ role: 'system', content: 'You tell short stories.' }, { role: 'user', content: 'Hello' }] };
  assert.deepEqual(page.bodies[1], expected);
  const text = await textOf(page);
  await page.reload();
  await page.getByRole('button', { name: 'Answer again' }).click();
  await page.getByText('2 / 2').waitFor();
  await ended(page);
  assert.deepEqual(page.bodies[2], expected);
  assert.equal(await textOf(page), text); // the same seed
  await page.click('#reset');
  assert.equal(await page.inputValue('#control-temperature'), '1');
  await assertAccessible(page);
  await page.done();
});

test('an answer cut off at its length can go on', limit, async () => {
  const page = await openPage(browser, demo.url);
  await openPanel(page);
  await setExact(page, 'temperature', 0);
  await setExact(page, 'max_tokens', 60);
  await ask(page, 'Tell me a story about a dog.');
  await ended(page);
  const whole = await textOf(page);
  await setExact(page, 'max_tokens', 30);
  await page.click('#new');
  await ask(page, 'Tell me a story about a dog.');
  await ended(page);
  assert.match(await answers(page).locator('.stats').innerText(), /cut off/);
  await page.getByRole('button', { name: 'Go on' }).click();
  await page.waitForFunction(() => !document.querySelector('#send').hidden);
  const squeeze = (text) => text.replace(/\s+/g, ' ').trim();
  assert.equal(squeeze(await textOf(page)), squeeze(whole));
  await page.done();
});

test('a worker that dies in the middle of an answer is only a pause', limit, async () => {
  const server = await startLlmd({ settings: ['--fault-points', `worker.commit=kill:${killAt}@1`] });
  const page = await openPage(browser, server.url);
  await openPanel(page);
  await setExact(page, 'temperature', 0);
  await ask(page, 'Tell me a story about a dog.');
  await ended(page);
  const { restarts, last_exit: lastExit } = await server.process('worker 0.0');
  assert.equal(restarts, 1);
  assert.match(lastExit, /signal 9|SIGKILL|killed/i);
  const disturbed = await textOf(page);
  await page.getByRole('button', { name: 'Answer again' }).click();
  await page.getByText('2 / 2').waitFor();
  await ended(page);
  assert.equal(await textOf(page), disturbed);
  assert.equal((await server.process('worker 0.0')).restarts, 1);
  await page.done();
  assert.equal(await server.stop(), 0);
});

test('a model without a chat template goes on with the text, over kill -9 of its worker and of the gateway', limit, async () => {
  const folder = await mkdtemp(join(tmpdir(), 'llmd-web-model-'));
  const model = join(folder, 'model.gguf');
  assert.equal(spawnSync(join(bin, 'bench-make-gguf'), ['--shape', '110m', model]).status, 0);
  const server = await startLlmd({ model, settings: ['--threads', '1'] }); // a core for the browser, to draw while it runs
  const page = await openPage(browser, server.url, { allowed: [400] }); // it asks whether there is a template
  const kill = async (name) => {
    await page.waitForFunction(() => document.querySelector('.message.running .text')?.innerText.length > 5);
    process.kill((await server.process(name)).pid, 'SIGKILL');
    await ended(page);
    assert.equal((await server.process(name)).restarts, 1);
    assert.match(await answers(page).locator('.stats').innerText(), /^900 tokens/);
  };
  await openPanel(page);
  await setExact(page, 'temperature', 0);
  await setExact(page, 'max_tokens', 900); // long enough to be killed in, also where this page is held up
  await page.getByText('This model has no chat template').waitFor();
  assert.ok(await page.locator('#system-control').isHidden());
  await ask(page, 'Once upon a time');
  await kill('worker 0.0');
  const text = await textOf(page);
  await page.getByRole('button', { name: 'Answer again' }).click();
  await kill('gateway');
  assert.equal(await textOf(page), text);
  await page.getByRole('button', { name: 'Answer again' }).click();
  await page.getByText('3 / 3').waitFor();
  await ended(page);
  assert.equal(await textOf(page), text);
  assert.deepEqual(page.bodies.map((b) => b.prompt), Array(3).fill('Once upon a time'));
  await page.done();
  assert.equal(await server.stop(), 0);
  await rm(folder, { recursive: true });
});

const attacks = [
  '<script>alert(1)</script><img src=x onerror=alert(2)>',
  '<svg onload=alert(3)><iframe srcdoc="<script>alert(4)</script>"></iframe>',
  '[link](javascript:alert(5)) ![picture](https://example.com/x.png "t") <a href="javascript:alert(6)">a</a>',
  '```"><img src=x onerror=alert(7)>\n<img src=x onerror=alert(8)>\n```\n`<b onmouseover=alert(9)>`',
  '<style>*{display:none}</style><form action=//example.com><input name=body></form><base href=//example.com>',
  '<div id=prompt class=send style="position:fixed;inset:0" onclick=alert(10)>x</div>[x](data:text/html,<script>alert(11)</script>)',
  '<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=alert(12)&gt;">',
];

test('hostile text of a user or of a model does nothing', limit, async () => {
  const page = await openPage(browser, told.url);
  await told.step(200);
  for (const [i, attack] of attacks.entries()) {
    await told.say(attack);
    await ask(page, attack);
    await ended(page, i + 1);
    assert.equal(await page.locator('.message.user .text').nth(i).innerText(), attack);
  }
  await page.reload();
  await page.waitForFunction((n) => document.querySelectorAll('.message.assistant').length === n, attacks.length);
  const strange = await page.locator('.message').evaluateAll((list) => list.flatMap((m) => [...m.querySelectorAll('.text *')])
    .filter((e) => e.matches('script,img,iframe,style,form,input,base,math,object,embed,link,meta') || e.id || e.hasAttribute('style') ||
      [...e.attributes].some((a) => a.name.startsWith('on')) || (e.href && !/^https:/.test(e.href))).map((e) => e.outerHTML));
  assert.deepEqual(strange, []);
  assert.equal(await page.locator('#prompt').count(), 1);
  await page.done(); // no dialog, no request elsewhere, nothing for the policy to refuse
});

test('markdown and code are drawn, and thoughts apart from the answer', limit, async () => {
  const page = await openPage(browser, told.url);
  await told.step(200);
  await told.say('<think>\nA list, then code.\n</think>\n## Palindromes\n\n1. **fast**\n2. *short*\n\n| word | is one |\n|---|---|\n| level | yes |\n\n' +
    '```python\ndef is_palindrome(word: str) -> bool:\n    # the same from both ends\n    return word == word[::-1]\n```\n\nSee `word[::-1]`.');
  await ask(page, 'Write a Python function that says whether a word is a palindrome.');
  await ended(page);
  const answer = answers(page);
  assert.equal(await answer.locator('h3').innerText(), 'Palindromes');
  assert.equal(await answer.locator('table td').count(), 2);
  assert.equal(await answer.locator('pre .hljs-keyword').first().innerText(), 'def');
  assert.equal(await answer.locator('summary').innerText(), 'Thoughts');
  assert.match(await answer.locator('.thoughts').textContent(), /A list, then code\./);
  await assertAccessible(page);
  await shoot(page, 'chat-markdown-light');
  await page.emulateMedia({ colorScheme: 'dark' });
  await assertAccessible(page);
  await shoot(page, 'chat-markdown-dark');
  await page.setViewportSize({ width: 360, height: 740 });
  await assertNoSideways(page);
  await shoot(page, 'chat-markdown-phone');
  await page.done();
});

test('a conversation longer than the context leaves out its beginning', limit, async () => {
  const page = await openPage(browser, told.url);
  await told.step(200);
  await told.say('ഈ'.repeat(60)); // 180 tokens: the model knows its bytes only
  for (let n = 1; n <= 3; n++) {
    await ask(page, `Question ${n}`);
    await ended(page, n);
  }
  assert.equal(await answers(page).locator('.error').count(), 0);
  assert.deepEqual(page.bodies.map((b) => b.messages.length), [1, 3, 3]);
  assert.equal(page.bodies[2].messages[0].content, 'Question 2');
  assert.match(await page.locator('#notice').innerText(), /beginning is left out/);
  await page.done();
});

test('a phone has room for everything', limit, async () => {
  const page = await openPage(browser, demo.url, { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true });
  await assertNoSideways(page);
  await page.locator('#state[data-state=ready]').waitFor();
  assert.equal(await page.evaluate(() => document.getElementById('log').scrollTop), 0);
  await shoot(page, 'chat-welcome-phone');
  await page.locator('#examples button').first().tap();
  await ended(page);
  await assertNoSideways(page);
  await shoot(page, 'chat-phone');
  await page.tap('#open-side');
  await assertAccessible(page);
  await shoot(page, 'chat-side-phone');
  await page.tap('#close-side');
  await page.tap('#open-panel');
  await page.locator('#control-temperature').waitFor();
  await assertNoSideways(page);
  await assertAccessible(page);
  await shoot(page, 'chat-panel-phone');
  await page.keyboard.press('Escape');
  assert.ok(await page.locator('#panel').isHidden());
  await page.done();
});

test('everything is done with the keyboard', limit, async () => {
  const page = await openPage(browser, demo.url, { viewport: { width: 1100, height: 800 } });
  assert.equal(await page.evaluate(() => document.activeElement.id), 'prompt');
  await page.evaluate(() => {
    document.body.tabIndex = -1;
    document.body.focus();
  });
  await page.keyboard.press('Tab');
  assert.equal(await page.evaluate(() => document.activeElement.className), 'skip');
  await page.keyboard.press('Enter');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'prompt');
  await page.keyboard.type('One line');
  await page.keyboard.press('Shift+Enter');
  await page.keyboard.type('and another');
  await page.keyboard.press('Enter');
  await ended(page);
  assert.equal(page.bodies[0].messages[0].content, 'One line\nand another');
  await page.keyboard.press('Control+/');
  assert.ok(await page.locator('#keys').isVisible());
  await assertAccessible(page);
  await shoot(page, 'chat-keys');
  await page.keyboard.press('Escape');
  assert.ok(await page.locator('#keys').isHidden());
  await page.keyboard.press('Control+,');
  assert.ok(await page.locator('#panel').isVisible());
  await page.keyboard.press('Control+Shift+O');
  assert.equal(await answers(page).count(), 0);
  await page.done();
});

test('a server with API keys is asked with one, kept for the tab alone', limit, async () => {
  const server = await startLlmd({ key: 'sk-right' });
  const page = await openPage(browser, server.url, { allowed: [401] });
  const dialog = page.locator('#ask-key');
  await dialog.waitFor();
  await assertAccessible(page);
  await shoot(page, 'chat-api-key');
  await page.fill('#key', 'sk-wrong');
  await page.keyboard.press('Enter');
  await page.getByText('does not take this API key').waitFor();
  await page.fill('#key', 'sk-right');
  await page.keyboard.press('Enter');
  await page.waitForFunction(() => document.querySelector('#model').innerText === 'stories-demo');
  await ask(page, 'Hello');
  await ended(page);
  assert.equal(await answers(page).locator('.error').count(), 0);
  assert.ok(!(await page.evaluate(() => JSON.stringify(localStorage))).includes('sk-right'));
  await page.goto(`${server.url}ui/status`);
  await page.locator('#tiles .tile').first().waitFor();
  await page.done();
  assert.equal(await server.stop(), 0);
});

test('a prefix of a reverse proxy is kept, and a server that is gone is named', limit, async () => {
  const proxy = await startProxy(demo.url, '/some/place/');
  const page = await openPage(browser, proxy.url);
  await ask(page, 'Hello');
  await ended(page);
  assert.equal(await answers(page).locator('.error').count(), 0);
  await page.click('text=Server status');
  await page.locator('#tiles .tile').first().waitFor();
  await page.click('nav >> text=API');
  await page.locator('details').first().waitFor();
  await page.click('text=Chat');
  assert.equal(await answers(page).count(), 1);
  await page.evaluate(() => window.refused.length).then((n) => assert.equal(n, 0));
  proxy.stop();
  await ask(page, 'Are you there?');
  await answers(page).nth(1).locator('.error').waitFor();
  assert.match(await answers(page).nth(1).locator('.error').innerText(), /does not answer/);
  await page.context().close();
});
