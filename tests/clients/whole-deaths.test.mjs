// Any process dies while clients stream, and they do not notice: their texts are the undisturbed ones, and no error is
// seen.  No client tries anything again by itself.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { InferenceClient } from '@huggingface/inference';
import { ChatOpenAI } from '@langchain/openai';
import { streamText } from 'ai';
import OpenAI from 'openai';
import { model, runs, start, until } from './llmd.mjs';

const limit = { timeout: 120000 };
const maxTokens = 300;
const tries = 8; // of kills: all may have been answered before one comes
const messages = [{ role: 'user', content: 'Tell me a long story.' }];

// Each gives the pieces of a text, of one chance that its seed decides.
function streamsOf(url) {
  const baseURL = `${url}/v1`;
  const openai = new OpenAI({ baseURL, apiKey: 'none', maxRetries: 0 });
  const compatible = createOpenAICompatible({ name: 'llmd', baseURL, apiKey: 'none' });
  const langchain = new ChatOpenAI({
    model, apiKey: 'none', maxRetries: 0, maxTokens, configuration: { baseURL }, modelKwargs: { seed: 3, ignore_eos: true },
  });
  const huggingface = new InferenceClient('none').endpoint(url);
  const ask = { model, max_tokens: maxTokens, ignore_eos: true, stream: true };

  return {
    async *completion() {
      for await (const chunk of await openai.completions.create({ ...ask, prompt: 'Once upon a time', seed: 1 })) yield chunk.choices[0].text;
    },
    async *greedy() {
      for await (const chunk of await openai.completions.create({ ...ask, prompt: 'One day', temperature: 0 })) yield chunk.choices[0].text;
    },
    async *chat() {
      for await (const chunk of await openai.chat.completions.create({ ...ask, messages, seed: 2 })) yield chunk.choices[0].delta.content ?? '';
    },
    async *langchain() {
      for await (const piece of await langchain.stream(messages[0].content)) yield piece.content;
    },
    async *ai() {
      const { fullStream } = streamText({ model: compatible(model), messages, seed: 4, maxOutputTokens: maxTokens, maxRetries: 0 });
      for await (const part of fullStream) {
        if (part.type === 'error') throw part.error;
        if (part.type === 'text-delta') yield part.text;
      }
    },
    async *huggingface() {
      for await (const chunk of huggingface.chatCompletionStream({ messages, seed: 5, max_tokens: maxTokens }))
        yield chunk.choices[0]?.delta?.content ?? '';
    },
  };
}

// The texts of all streams at once; onAll is called when each has begun.
async function texts(url, onAll) {
  const streams = Object.entries(streamsOf(url));
  let nBegun = 0;
  const read = async ([name, stream]) => {
    let text = '';
    for await (const piece of stream()) {
      if (text === '' && piece !== '' && ++nBegun === streams.length) onAll?.();
      text += piece;
    }
    return [name, text];
  };
  return Object.fromEntries(await Promise.all(streams.map(read)));
}

// Kill these processes amid the streams until `counter` tells that it was amid them.
async function killAmid(server, names, counter) {
  const calm = await texts(server.url);
  assert.ok(Object.values(calm).every((text) => text.length > 50));
  const before = await server.metric(counter);
  for (let i = 0; i < tries; i++) {
    assert.deepEqual(await texts(server.url, () => names.forEach(server.kill)), calm);
    await until(server.isReady);
    if ((await server.metric(counter)) > before) return;
  }
  assert.fail(`${counter} does not move`);
}

async function leavesNothing(server) {
  await server.idle();
  assert.equal(await server.stop(), 0);
}

test('a worker is killed', limit, async () => {
  const server = await start();
  await killAmid(server, ['llm-worker'], 'llmd_sequences_recovered_total');
  await leavesNothing(server);
});

test('a gateway is killed', limit, async () => {
  const server = await start();
  await killAmid(server, ['llm-gateway'], 'llmd_connections_resumed_total');
  await leavesNothing(server);
});

test('llmd is killed below llm-init, which brings it back', limit, async () => {
  const server = await start({ withInit: true });
  const first = server.pidOf('llmd');
  await killAmid(server, ['llmd'], 'llmd_llmd_adoptions_total');
  assert.notEqual(server.pidOf('llmd'), first);
  await leavesNothing(server);
});

test('worker, gateway and llmd are killed at once', limit, async () => {
  const server = await start({ withInit: true });
  await killAmid(server, ['llm-worker', 'llm-gateway', 'llmd'], 'llmd_sequences_recovered_total');
  await leavesNothing(server);
});

test('llmd is killed with nobody above it: the others answer what runs, and end', limit, async () => {
  const server = await start({ settings: ['--orphan-timeout-s', '3'] });
  const orphans = ['llm-gateway', 'llm-worker'].map(server.pidOf);
  const calm = await texts(server.url);
  assert.deepEqual(await texts(server.url, () => server.kill('llmd')), calm);
  await until(() => !orphans.some(runs));
  assert.equal(await server.stop(), 'SIGKILL');
});
