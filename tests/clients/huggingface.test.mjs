// Hugging Face's client, given an address: it asks for completions and chats there, and names the address as the
// model.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { InferenceClient } from '@huggingface/inference';
import { script, scripted, start, tools } from './server.mjs';

const limit = { timeout: 20000 };
const messages = [{ role: 'user', content: 'Hi' }];
let server, client;

before(async () => {
  server = await start();
  client = new InferenceClient('none').endpoint(server.url);
});
after(async () => assert.equal(await server.stop(), 0));

test('a text streams what it answers', limit, async () => {
  const ask = { inputs: 'One day', parameters: { max_new_tokens: 20, do_sample: true, seed: 7, return_full_text: false } };
  const whole = await client.textGeneration(ask);
  let text = '';
  for await (const event of client.textGenerationStream(ask)) text += event.choices[0].text;
  assert.equal(text, whole.generated_text);
});

test('a chat streams what it answers', limit, async () => {
  const ask = { messages, max_tokens: 20, seed: 7 };
  const whole = await client.chatCompletion(ask);
  let text = '';
  for await (const chunk of client.chatCompletionStream(ask)) text += chunk.choices[0]?.delta?.content ?? '';
  assert.equal(text, whole.choices[0].message.content);
});

test('tools are called', limit, async () => {
  const { choices: [choice] } = await client.chatCompletion({ messages, tools, seed: scripted });
  assert.deepEqual(choice.message.tool_calls.map((c) => [c.function.name, JSON.parse(c.function.arguments)]), script.calls);
});

test('a refusal is an error', limit, async () => {
  await assert.rejects(client.chatCompletion({ messages, top_p: 7 }));
});
