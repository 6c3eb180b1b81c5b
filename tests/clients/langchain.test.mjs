// LangChain's client of OpenAI.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { ChatOpenAI } from '@langchain/openai';
import { model, script, scripted, start, tools } from './server.mjs';

const limit = { timeout: 20000 };
let server;

before(async () => (server = await start()));
after(async () => assert.equal(await server.stop(), 0));

function chat(more) {
  return new ChatOpenAI({ model, apiKey: 'none', maxRetries: 0, configuration: { baseURL: `${server.url}/v1` }, ...more });
}

test('a chat streams what it answers', limit, async () => {
  const asked = chat({ maxTokens: 20, modelKwargs: { seed: 7 } });
  const whole = await asked.invoke('Hi');
  let text = '';
  for await (const piece of await asked.stream('Hi')) text += piece.content;
  assert.equal(text, whole.content);
});

test('tools are called, whole and streamed', limit, async () => {
  const asked = chat({ modelKwargs: { seed: scripted } }).bindTools(tools);
  const whole = await asked.invoke('Hi');
  let sum;
  for await (const piece of await asked.stream('Hi')) sum = sum ? sum.concat(piece) : piece;
  for (const message of [whole, sum])
    assert.deepEqual(message.tool_calls.map((c) => [c.name, c.args]), script.calls);
});

test('a refusal is an error', limit, async () => {
  await assert.rejects(chat({ topP: 7 }).invoke('Hi'), /top_p must be in \(0, 1\]/);
});
