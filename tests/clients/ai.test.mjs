// The ai SDK, with the provider for compatible servers and with OpenAI's own.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { APICallError, generateText, jsonSchema, streamText, tool } from 'ai';
import { functions, model, script, scripted, start } from './server.mjs';

const limit = { timeout: 20000 };
const tools = Object.fromEntries(
  functions.map((f) => [f.name, tool({ description: f.description, inputSchema: jsonSchema(f.parameters) })]),
);
let server, compatible, openai;

// The Responses API has no seed; the gateway takes one.
function fetchSeeded(url, options) {
  return fetch(url, { ...options, body: JSON.stringify({ ...JSON.parse(options.body), seed: scripted }) });
}

before(async () => {
  server = await start();
  const baseURL = `${server.url}/v1`;
  compatible = createOpenAICompatible({ name: 'llmd', baseURL, apiKey: 'none' });
  openai = createOpenAI({ baseURL, apiKey: 'none', fetch: fetchSeeded });
});
after(async () => assert.equal(await server.stop(), 0));

async function expectScript(languageModel, thinks) {
  const ask = { model: languageModel, prompt: 'Hi', tools, seed: scripted, maxRetries: 0 };
  const whole = await generateText(ask);
  const streamed = streamText(ask);
  let text = '', reasoning = '';
  for await (const part of streamed.fullStream) {
    if (part.type === 'error') throw part.error;
    if (part.type === 'text-delta') text += part.text;
    if (part.type === 'reasoning-delta') reasoning += part.text;
  }
  assert.equal(whole.text, script.text);
  assert.equal(text, script.text);
  for (const result of [whole, streamed]) {
    assert.equal(await result.finishReason, 'tool-calls');
    assert.deepEqual((await result.toolCalls).map((c) => [c.toolName, c.input]), script.calls);
  }
  if (!thinks) return;
  assert.equal(whole.reasoningText, script.reasoning);
  assert.equal(reasoning, script.reasoning);
}

test('compatible: thoughts, text and calls', limit, () => expectScript(compatible(model), true));
test('openai chat: text and calls', limit, () => expectScript(openai.chat(model), false));
test('openai responses: text and calls', limit, () => expectScript(openai.responses(model), false));

test('a plain text is streamed whole', limit, async () => {
  const ask = { model: compatible(model), prompt: 'Hi', seed: 7, maxOutputTokens: 20, maxRetries: 0 };
  const whole = await generateText(ask);
  let text = '';
  for await (const piece of streamText(ask).textStream) text += piece;
  assert.equal(text, whole.text);
  assert.equal(whole.finishReason, 'length');
  assert.equal(whole.usage.outputTokens, 20);
});

test('an error is one of the API', limit, async () => {
  const ask = { model: compatible('other'), prompt: 'Hi', maxRetries: 0 };
  await assert.rejects(generateText(ask), (e) => APICallError.isInstance(e) && e.statusCode === 404);
});
