// The official client of OpenAI against a whole server.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import OpenAI from 'openai';
import { goldenChats, goldenPrompts, goldenTokens, model, start } from './llmd.mjs';

const limit = { timeout: 60000 };
const messages = [{ role: 'user', content: 'Tell me a story about a dog.' }];
let server, client;

before(async () => {
  server = await start();
  client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'none', maxRetries: 0 });
});
after(async () => assert.equal(await server.stop(), 0));

async function streamed(ask) {
  const texts = [];
  let usage;
  for await (const chunk of await client.completions.create({ ...ask, stream: true, stream_options: { include_usage: true } })) {
    for (const choice of chunk.choices) texts[choice.index] = (texts[choice.index] ?? '') + choice.text;
    usage = chunk.usage ?? usage;
  }
  return { texts, usage };
}

test('greedy completions are the reference, whole and streamed', limit, async () => {
  for (const golden of goldenPrompts) {
    const ask = { model, prompt: golden.prompt, max_tokens: goldenTokens, temperature: 0 };
    const whole = await client.completions.create(ask);
    const { texts, usage } = await streamed(ask);
    assert.equal(whole.choices[0].text.trim(), golden.greedy_text);
    assert.deepEqual(texts, [whole.choices[0].text]);
    assert.equal(whole.choices[0].finish_reason, 'length');
    for (const { prompt_tokens: read, completion_tokens: told } of [usage, whole.usage])
      assert.deepEqual([read, told], [golden.ids.length, goldenTokens]);
  }
});

test('greedy chats are the reference, whole and streamed', limit, async () => {
  for (const golden of goldenChats) {
    const ask = { model, messages: golden.messages, max_tokens: goldenTokens, temperature: 0 };
    const whole = await client.chat.completions.create(ask);
    const stream = await client.chat.completions.stream(ask).finalChatCompletion();
    for (const { choices: [choice] } of [whole, stream]) {
      assert.equal(choice.message.content.trim(), golden.greedy_text);
      assert.equal(choice.finish_reason, 'length');
    }
    assert.equal(whole.usage.prompt_tokens, golden.ids.length);
  }
});

test('a prompt may be ids, and several are answered in order', limit, async () => {
  const ask = { model, max_tokens: goldenTokens, temperature: 0 };
  const byIds = await client.completions.create({ ...ask, prompt: goldenPrompts[0].ids });
  const several = await client.completions.create({ ...ask, prompt: goldenPrompts.map((g) => g.prompt) });
  assert.equal(byIds.choices[0].text.trim(), goldenPrompts[0].greedy_text);
  assert.deepEqual(several.choices.map((c) => c.text.trim()), goldenPrompts.map((g) => g.greedy_text));
});

test('a seed repeats, another differs, and n differ among themselves', limit, async () => {
  const ask = (seed) => client.completions.create({ model, prompt: 'One day', seed, temperature: 1, max_tokens: 40, n: 3 });
  const texts = async (seed) => (await ask(seed)).choices.map((c) => c.text);
  const [first, again, other] = [await texts(7), await texts(7), await texts(8)];
  assert.deepEqual(again, first);
  assert.notDeepEqual(other, first);
  assert.equal(new Set(first).size, 3);
  const { texts: stream } = await streamed({ model, prompt: 'One day', seed: 7, temperature: 1, max_tokens: 40, n: 3 });
  assert.deepEqual(stream, first);
});

test('log probabilities are those of the greedy choice', limit, async () => {
  const ask = { model, messages, max_tokens: 12, temperature: 0, logprobs: true, top_logprobs: 3 };
  const { choices: [choice] } = await client.chat.completions.create(ask);
  const tokens = choice.logprobs.content;
  assert.equal(tokens.length, 12);
  assert.equal(tokens.map((t) => t.token).join(''), choice.message.content);
  for (const { token, logprob, bytes, top_logprobs: top } of tokens) {
    assert.equal(top.length, 3);
    assert.deepEqual([top[0].token, top[0].logprob], [token, logprob]);
    assert.ok(top[0].logprob >= top[1].logprob && top[1].logprob >= top[2].logprob && logprob <= 0);
    assert.equal(Buffer.from(bytes).toString(), token);
  }
  const completion = await client.completions.create({ model, prompt: 'One day', max_tokens: 5, temperature: 0, logprobs: 2, echo: true });
  const { token_logprobs: logprobs, tokens: names } = completion.choices[0].logprobs;
  assert.equal(names.slice(1).join('').trimStart(), completion.choices[0].text);
  assert.equal(logprobs[0], null);
  assert.ok(logprobs.slice(1).every((p) => p < 0));
});

test('a stop string ends a text before itself', limit, async () => {
  const [golden] = goldenPrompts;
  const stop = ' sunshine';
  const ask = { model, prompt: golden.prompt, max_tokens: goldenTokens, temperature: 0, stop };
  const wanted = golden.greedy_text.slice(0, golden.greedy_text.indexOf(stop));
  const whole = await client.completions.create(ask);
  const { texts } = await streamed(ask);
  assert.equal(whole.choices[0].text, wanted);
  assert.deepEqual(texts, [wanted]);
  assert.equal(whole.choices[0].finish_reason, 'stop');
});

test('an embedding is a unit vector, a function of its text', limit, async () => {
  const embed = async (input, more) => (await client.embeddings.create({ model, input, ...more })).data.map((d) => d.embedding);
  const [dog, again, cat] = await embed(['The dog', 'The dog', 'A cat sat']);
  const [plain] = await embed('The dog', { encoding_format: 'float' });
  const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);
  assert.ok(Math.abs(dot(dog, dog) - 1) < 1e-5);
  assert.deepEqual(again, dog);
  assert.ok(dot(dog, cat) < 0.999);
  assert.equal(plain.length, dog.length);
  assert.ok(plain.every((x, i) => Math.abs(x - dog[i]) < 1e-6));
});

test('a response is the chat of its items', limit, async () => {
  const [golden] = goldenChats;
  const ask = { model, input: golden.messages[0].content, max_output_tokens: goldenTokens, temperature: 0 };
  const whole = await client.responses.create(ask);
  const stream = await client.responses.stream(ask).finalResponse();
  for (const response of [whole, stream]) {
    assert.equal(response.output_text.trim(), golden.greedy_text);
    assert.equal(response.status, 'incomplete');
    assert.equal(response.incomplete_details.reason, 'max_output_tokens');
  }
});

test('many streams at once say what each says alone', limit, async () => {
  const asks = Array.from({ length: 16 }, (_, i) => ({ model, prompt: `Story ${i}: One day`, seed: i, temperature: 0.9, max_tokens: 60 }));
  const alone = [];
  for (const ask of asks) alone.push((await client.completions.create(ask)).choices[0].text);
  const together = await Promise.all(asks.map(streamed));
  assert.deepEqual(together.map(({ texts }) => texts[0]), alone);
});

test('an abort frees its sequence', limit, async () => {
  const before = await server.metric('llmd_sequences_cancelled_total');
  const ask = { model, prompt: 'Once upon a time', max_tokens: 400, ignore_eos: true, stream: true };
  const streams = await Promise.all(Array.from({ length: 8 }, () => client.completions.create(ask)));
  await Promise.all(streams.map(async (stream) => {
    for await (const chunk of stream) if (chunk.choices.length) stream.controller.abort();
  }));
  await server.idle();
  assert.ok((await server.metric('llmd_sequences_cancelled_total')) > before);
});

test('errors have their classes', limit, async () => {
  const chat = (more) => client.chat.completions.create({ model, messages, ...more });
  await assert.rejects(chat({ model: 'other' }), (e) => e instanceof OpenAI.NotFoundError && e.param === 'model');
  await assert.rejects(chat({ temperature: -1 }), (e) => e instanceof OpenAI.BadRequestError && e.type === 'BadRequestError');
  await assert.rejects(chat({ messages: [] }), OpenAI.BadRequestError);
  await assert.rejects(chat({ messages: 'x' }), OpenAI.BadRequestError);
  await assert.rejects(client.completions.create({ model, prompt: 'word '.repeat(600) }), OpenAI.BadRequestError);
  await assert.rejects(client.models.retrieve('other'), OpenAI.NotFoundError);
  await assert.rejects(client.responses.retrieve('resp_1'), OpenAI.NotFoundError);
});

test('a full house says so, and a client that tries again gets in', limit, async () => {
  const small = await start({ settings: ['--max-concurrent-requests', '1'] });
  const ask = { model, prompt: 'Once upon a time', max_tokens: 400, ignore_eos: true };
  const one = new OpenAI({ baseURL: `${small.url}/v1`, apiKey: 'none', maxRetries: 0 });
  const patient = new OpenAI({ baseURL: `${small.url}/v1`, apiKey: 'none', maxRetries: 10 });
  const stream = await one.completions.create({ ...ask, stream: true });
  await assert.rejects(one.completions.create(ask), (e) => e instanceof OpenAI.RateLimitError && Number(e.headers.get('retry-after')) > 0);
  const [later] = await Promise.all([patient.completions.create(ask), (async () => { for await (const chunk of stream) assert.ok(chunk); })()]);
  assert.equal(later.usage.completion_tokens, 400);
  assert.equal(await small.stop(), 0);
});
