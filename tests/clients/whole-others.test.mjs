// The other clients against a whole server: the ai SDK, LangChain, Hugging Face's; and all of them without its API key.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { InferenceClient } from '@huggingface/inference';
import { ChatOpenAI, OpenAI as LangChainOpenAI, OpenAIEmbeddings } from '@langchain/openai';
import { APICallError, embedMany, generateText, streamText } from 'ai';
import OpenAI from 'openai';
import { goldenChats, goldenPrompts, goldenTokens, model, start } from './llmd.mjs';

const limit = { timeout: 60000 };
const apiKey = 'sk-of-this-test';
const [golden] = goldenChats;
const prompt = golden.messages[0].content;
let server, baseURL;

before(async () => {
  server = await start({ apiKey });
  baseURL = `${server.url}/v1`;
});
after(async () => assert.equal(await server.stop(), 0));

const compatible = (key = apiKey) => createOpenAICompatible({ name: 'llmd', baseURL, apiKey: key, includeUsage: true });
const langchain = (more) =>
  new ChatOpenAI({ model, apiKey, maxRetries: 0, temperature: 0, maxTokens: goldenTokens, configuration: { baseURL }, ...more });
const huggingface = (key = apiKey) => new InferenceClient(key).endpoint(server.url);

test('ai: a greedy chat is the reference, whole and streamed', limit, async () => {
  const ask = { model: compatible()(model), prompt, temperature: 0, maxOutputTokens: goldenTokens, maxRetries: 0 };
  const whole = await generateText(ask);
  const stream = streamText(ask);
  let text = '';
  for await (const piece of stream.textStream) text += piece;
  assert.equal(whole.text.trim(), golden.greedy_text);
  assert.equal(text, whole.text);
  for (const result of [whole, stream]) {
    assert.equal(await result.finishReason, 'length');
    assert.equal((await result.usage).outputTokens, goldenTokens);
  }
});

test('ai: a seed repeats, a stop string ends, an abort frees', limit, async () => {
  const ask = { model: compatible()(model), prompt, temperature: 1, seed: 5, maxOutputTokens: 40, maxRetries: 0 };
  assert.equal((await generateText(ask)).text, (await generateText(ask)).text);
  const stopped = await generateText({ ...ask, temperature: 0, stopSequences: [' Spot'] });
  assert.equal(stopped.text.trim(), golden.greedy_text.slice(0, golden.greedy_text.indexOf(' Spot')));
  assert.equal(stopped.finishReason, 'stop');
  const abort = new AbortController();
  const stream = streamText({ ...ask, maxOutputTokens: 400, abortSignal: abort.signal, onError() {} });
  for await (const piece of stream.textStream) if (piece) abort.abort();
  await server.idle();
});

test('ai: embeddings', limit, async () => {
  const { embeddings } = await embedMany({ model: compatible().textEmbeddingModel(model), values: ['The dog', 'The dog', 'A cat'] });
  assert.deepEqual(embeddings[1], embeddings[0]);
  assert.notDeepEqual(embeddings[2], embeddings[0]);
});

test('langchain: a greedy chat is the reference, whole, streamed and in a batch', limit, async () => {
  const chat = langchain();
  const whole = await chat.invoke(prompt);
  let text = '';
  for await (const piece of await chat.stream(prompt)) text += piece.content;
  assert.equal(whole.content.trim(), golden.greedy_text);
  assert.equal(text, whole.content);
  for (const message of await chat.batch([prompt, prompt, prompt])) assert.equal(message.content, whole.content);
});

test('langchain: completions, log probabilities and embeddings', limit, async () => {
  const completions = new LangChainOpenAI({ model, apiKey, maxRetries: 0, temperature: 0, maxTokens: goldenTokens, configuration: { baseURL } });
  assert.equal((await completions.invoke(goldenPrompts[0].prompt)).trim(), goldenPrompts[0].greedy_text);
  const message = await langchain({ logprobs: true, topLogprobs: 2 }).invoke(prompt);
  assert.equal(message.response_metadata.logprobs.content.length, goldenTokens);
  const embeddings = new OpenAIEmbeddings({ model, apiKey, maxRetries: 0, configuration: { baseURL } });
  const [first, second] = await embeddings.embedDocuments(['The dog', 'The dog']);
  assert.deepEqual(first, second);
});

test('huggingface: greedy texts and chats are the reference, whole and streamed', limit, async () => {
  const client = huggingface();
  const [plain] = goldenPrompts;
  const ask = { inputs: plain.prompt, parameters: { max_new_tokens: goldenTokens, return_full_text: false, temperature: 0 } };
  const whole = await client.textGeneration(ask);
  let text = '';
  for await (const event of client.textGenerationStream(ask)) text += event.choices?.[0]?.text ?? event.token.text;
  assert.equal(whole.generated_text.trim(), plain.greedy_text);
  assert.equal(text, whole.generated_text);
  const chat = { messages: golden.messages, max_tokens: goldenTokens, temperature: 0 };
  const answer = await client.chatCompletion(chat);
  let streamed = '';
  for await (const chunk of client.chatCompletionStream(chat)) streamed += chunk.choices[0]?.delta?.content ?? '';
  assert.equal(answer.choices[0].message.content.trim(), golden.greedy_text);
  assert.equal(streamed, answer.choices[0].message.content);
});

test('without the key each client says so in its way', limit, async () => {
  const chat = { model, messages: golden.messages, max_tokens: 2 };
  await assert.rejects(new OpenAI({ baseURL, apiKey: 'wrong', maxRetries: 0 }).chat.completions.create(chat), OpenAI.AuthenticationError);
  await assert.rejects(
    generateText({ model: compatible('wrong')(model), prompt, maxRetries: 0 }),
    (e) => APICallError.isInstance(e) && e.statusCode === 401,
  );
  await assert.rejects(langchain({ apiKey: 'wrong' }).invoke(prompt), (e) => e.status === 401);
  await assert.rejects(huggingface('wrong').chatCompletion(chat), (e) => e.httpResponse.status === 401);
  const opened = await new OpenAI({ baseURL, apiKey, maxRetries: 0 }).chat.completions.create(chat);
  assert.equal(opened.choices.length, 1);
});

test('a refusal has its status in each client', limit, async () => {
  await assert.rejects(
    generateText({ model: compatible()('other'), prompt, maxRetries: 0 }),
    (e) => APICallError.isInstance(e) && e.statusCode === 404,
  );
  await assert.rejects(langchain({ model: 'other' }).invoke(prompt), (e) => e.status === 404);
  await assert.rejects(langchain({ topP: 7 }).invoke(prompt), (e) => e.status === 400);
  await assert.rejects(huggingface().chatCompletion({ messages: golden.messages, top_p: 7 }), (e) => e.httpResponse.status === 400);
});
