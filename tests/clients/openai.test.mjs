// The official client of OpenAI.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import OpenAI from 'openai';
import { functions, model, script, scripted, start, tools } from './server.mjs';

const messages = [{ role: 'user', content: 'Hi' }];
const limit = { timeout: 20000 };
let server, client;

before(async () => {
  server = await start();
  client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'none', maxRetries: 0 });
});
after(async () => assert.equal(await server.stop(), 0));

function callsOf(message) {
  return message.tool_calls.map((c) => [c.function.name, JSON.parse(c.function.arguments)]);
}

test('a chat streams what it answers', limit, async () => {
  const ask = { model, messages, seed: 7, max_tokens: 20 };
  const whole = await client.chat.completions.create(ask);
  let text = '', usage;
  const stream = await client.chat.completions.create({ ...ask, stream: true, stream_options: { include_usage: true } });
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta?.content ?? '';
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, whole.choices[0].message.content);
  assert.equal(whole.choices[0].finish_reason, 'length');
  assert.equal(usage.completion_tokens, 20);
  assert.equal(usage.prompt_tokens, whole.usage.prompt_tokens);
});

test('completions stream what they answer, each of n', limit, async () => {
  const ask = { model, prompt: 'One day', seed: 7, max_tokens: 10, n: 2 };
  const whole = await client.completions.create(ask);
  const texts = ['', ''];
  for await (const chunk of await client.completions.create({ ...ask, stream: true }))
    for (const choice of chunk.choices) texts[choice.index] += choice.text;
  assert.deepEqual(texts, whole.choices.map((c) => c.text));
});

test('log probabilities have their shapes', limit, async () => {
  const chat = await client.chat.completions.create({ model, messages, seed: 7, max_tokens: 3, logprobs: true, top_logprobs: 2 });
  const content = chat.choices[0].logprobs.content;
  assert.equal(content.length, 3);
  for (const token of content) {
    assert.equal(token.top_logprobs.length, 2);
    assert.equal(Buffer.from(token.bytes).toString(), token.token);
    assert.ok(token.logprob <= 0);
  }
  const completion = await client.completions.create({ model, prompt: 'One day', seed: 7, max_tokens: 3, logprobs: 1 });
  assert.equal(completion.choices[0].logprobs.tokens.length, 3);
});

test('a chat calls tools, whole and streamed', limit, async () => {
  const ask = { model, messages, tools, seed: scripted };
  const whole = await client.chat.completions.create(ask);
  const streamed = await client.chat.completions.stream(ask).finalChatCompletion();
  for (const { choices: [choice] } of [whole, streamed]) {
    assert.equal(choice.finish_reason, 'tool_calls');
    assert.equal(choice.message.content, script.text);
    assert.deepEqual(callsOf(choice.message), script.calls);
    assert.match(choice.message.tool_calls[0].id, /^chatcmpl-tool-[0-9a-f]{16}$/);
  }
  assert.equal(whole.choices[0].message.reasoning, script.reasoning);
});

test('a response is items, whole and streamed', limit, async () => {
  const ask = { model, input: 'Hi', tools: functions.map((f) => ({ type: 'function', ...f })), seed: scripted };
  const whole = await client.responses.create(ask);
  const stream = client.responses.stream(ask);
  let deltas = '';
  stream.on('response.output_text.delta', (event) => (deltas += event.delta));
  const streamed = await stream.finalResponse();
  for (const response of [whole, streamed]) {
    assert.equal(response.status, 'completed');
    assert.equal(response.output_text, script.text);
    assert.deepEqual(response.output.map((item) => item.type), ['reasoning', 'message', 'function_call', 'function_call']);
    const calls = response.output.filter((item) => item.type === 'function_call');
    assert.deepEqual(calls.map((c) => [c.name, JSON.parse(c.arguments)]), script.calls);
  }
  assert.equal(deltas, script.text);
});

test('an embedding is a unit vector', limit, async () => {
  const { data } = await client.embeddings.create({ model, input: 'One day' });
  const squares = data[0].embedding.reduce((sum, x) => sum + x * x, 0);
  assert.ok(Math.abs(squares - 1) < 1e-3);
});

test('models are listed', limit, async () => {
  const page = await client.models.list();
  assert.equal(page.data[0].id, model);
});

test('an abort ends the computation', limit, async () => {
  const stream = await client.chat.completions.create({ model, messages, seed: 7, max_tokens: 400, stream: true });
  let n = 0;
  for await (const chunk of stream) {
    n += chunk.choices.length;
    if (n > 3) stream.controller.abort();
  }
  assert.ok(n < 400);
  await server.idle();
});

test('errors have their classes', limit, async () => {
  const chat = (more) => client.chat.completions.create({ model, messages, ...more });
  await assert.rejects(chat({ model: 'other' }), (e) => e instanceof OpenAI.NotFoundError && e.param === 'model');
  await assert.rejects(chat({ top_p: 7 }), (e) => e instanceof OpenAI.BadRequestError && e.type === 'BadRequestError');
  await assert.rejects(chat({ tools: [] }), OpenAI.BadRequestError);
  await assert.rejects(chat({ tools, tool_choice: 'required' }), OpenAI.BadRequestError);
  await assert.rejects(client.responses.create({ model, input: 'x', previous_response_id: 'resp_1' }), OpenAI.BadRequestError);
  await assert.rejects(client.responses.retrieve('resp_1'), OpenAI.NotFoundError);
});
