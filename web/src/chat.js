// chat.js - the chat page: a conversation, the answer that runs, and what keys and buttons do.
//
// One answer runs at a time.  It is written into the conversation as it comes and saved every now and then, so a page
// that is closed loses nothing; a pause of the server (a process is being replaced) is only waited through.
import { ApiError, getJson, key, postJson, readiness, streamCompletion } from './api.js';
import { byId, el, iconButton } from './dom.js';
import { MessageView } from './messages.js';
import { Settings } from './settings.js';
import { History, newConversation, openId, shown } from './store.js';

const examples = [
  'Tell me a story about a dog who finds a red ball.',
  'Write a short story about a brave little mouse.',
  'Tell me a story about a girl named Lily and her cat.',
  'Explain in three sentences why the sky is blue.',
  'Give me three ideas for a rainy afternoon.',
  'Write a Python function that says whether a word is a palindrome.',
];
const pauseMs = 700; // without a token, it is said that we wait
const saveMs = 500;
const stateMs = 5000;
const titleLength = 60;

const history = new History();
const settings = new Settings();
let conversation = newConversation();
let views = [];
let running = null; // { conversation, view, answer, controller, ended }
let model = null; // { name, context, chats }

// ---- the server ----

async function withKey(act) {
  for (;;) {
    try {
      return await act();
    } catch (e) {
      if (e.status !== 401 || !(await askForKey())) throw e;
    }
  }
}

async function askForKey() {
  const dialog = byId('ask-key');
  byId('ask-key-why').textContent = key.get() ? 'The server does not take this API key.' : 'This server wants an API key.';
  byId('key').value = '';
  dialog.returnValue = '';
  dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener('close', resolve, { once: true }));
  if (dialog.returnValue !== 'use') return false;
  key.set(byId('key').value.trim());
  return true;
}

/** Does the model have a chat template that works?  The server says so when it is asked for a chat's tokens. */
async function modelChats(name) {
  try {
    await postJson('tokenize', { model: name, messages: [{ role: 'user', content: 'x' }] });
    return true;
  } catch (e) {
    if (e.status === 400) return false;
    throw e;
  }
}

async function meetModel() {
  const { data } = await getJson('v1/models');
  model = { name: data[0].id, context: data[0].max_model_len, chats: await modelChats(data[0].id) };
  byId('model').textContent = model.name;
  document.title = `${model.name} · llmd`;
  settings.limit(model.context);
  byId('system-control').hidden = !model.chats;
  if (!model.chats) byId('about-model').textContent = 'This model has no chat template: it goes on with your text as it stands.';
}

async function showState() {
  const ready = await readiness();
  const words = { ready: 'Ready', degraded: 'Degraded', draining: 'Draining', unavailable: 'Unavailable', unknown: 'No answer' };
  const state = ready?.status ?? 'unknown';
  byId('state').dataset.state = state;
  byId('state').textContent = words[state] ?? state;
  if (ready && !model && !byId('ask-key').open) await begin();
}

function notice(text) {
  byId('notice').textContent = text ?? '';
  byId('notice').hidden = !text;
}

// ---- what is asked ----

/** The conversation before message `end`, as the API wants it. */
function apiMessages(end) {
  const list = conversation.messages.slice(0, end).map((m) =>
    m.role === 'user' ? { role: 'user', content: m.text } : { role: 'assistant', content: shown(m).text });
  return settings.system ? [{ role: 'system', content: settings.system }, ...list] : list;
}

/** Without a chat template: all the text there is. */
function promptText(end) {
  return conversation.messages.slice(0, end).map((m) => (m.role === 'user' ? m.text : shown(m).text)).join('');
}

/** Leave out the oldest turns until there is room for an answer, and no more tokens asked for than there is room. */
async function fit(body, signal) {
  for (;;) {
    const { count, max_model_len: context } = await postJson('tokenize', body.messages
      ? { model: body.model, messages: body.messages, add_generation_prompt: body.add_generation_prompt,
        continue_final_message: body.continue_final_message }
      : { model: body.model, prompt: body.prompt }, signal);
    const room = context - count;
    const first = body.messages?.findIndex((m) => m.role !== 'system');
    if (room >= Math.min(body.max_tokens, context / 4) || !body.messages || body.messages.length - first < 3) {
      body.max_tokens = Math.max(1, Math.min(body.max_tokens, room));
      return;
    }
    body.messages.splice(first, 2);
    notice('The conversation is longer than the model can read: its beginning is left out.');
  }
}

function requestOf(end, goesOn) {
  const common = { model: model.name, stream: true, stream_options: { include_usage: true }, ...settings.fields() };
  if (!model.chats) return { path: 'v1/completions', body: { ...common, prompt: promptText(goesOn ? end + 1 : end) } };
  const body = { ...common, messages: apiMessages(goesOn ? end + 1 : end) };
  if (goesOn) Object.assign(body, { add_generation_prompt: false, continue_final_message: true });
  return { path: 'v1/chat/completions', body };
}

// ---- an answer ----

/** Screen readers hear whole sentences, once. */
class Speaker {
  #said = 0;

  hear(text, isLast) {
    const rest = text.slice(this.#said);
    const n = isLast ? rest.length : rest.search(/[.!?\n][^.!?\n]*$/) + 1;
    if (n <= 0) return;
    byId('spoken').append(el('p', null, rest.slice(0, n)));
    this.#said += n;
    while (byId('spoken').childElementCount > 20) byId('spoken').firstChild.remove();
  }
}

/** What the reader saw: times are those of this page, and the rate is over the whole wait, since pieces that came while
 *  the page was busy are seen at once. */
class Meter {
  #begun = performance.now();
  #first = 0;
  #last = 0;
  tokens = 0;

  tick() {
    this.#last = performance.now();
    this.#first ||= this.#last;
    this.tokens++;
  }

  stats() {
    const seconds = (this.#last - this.#begun) / 1000;
    return { tokens: this.tokens, first: this.#first ? this.#first - this.#begun : 0, rate: seconds > 0 ? this.tokens / seconds : 0 };
  }
}

function takeChunk(answer, chunk, meter) {
  const choice = chunk.choices?.[0];
  const text = choice?.delta?.content ?? choice?.text ?? '';
  const thoughts = choice?.delta?.reasoning ?? choice?.delta?.reasoning_content ?? '';
  if (text || thoughts) meter.tick();
  answer.text += text;
  answer.thoughts += thoughts;
  if (chunk.usage) meter.tokens = chunk.usage.completion_tokens;
  return choice?.finish_reason;
}

/** Run the request and fill the answer; never throws. */
async function receive(request, run) {
  const { answer, view, controller } = run;
  let meter = null;
  const speaker = new Speaker();
  const start = answer.text.length;
  let finish = 'lost';
  let saved = performance.now();
  let pause = 0;
  const waitFor = () => {
    clearTimeout(pause);
    view.pause = null;
    pause = setTimeout(() => {
      view.pause = 'The server pauses, the answer goes on soon …';
      view.draw();
    }, pauseMs);
  };
  try {
    await fit(request.body, controller.signal);
    meter = new Meter();
    for await (const chunk of streamCompletion(request.path, request.body, controller.signal)) {
      finish = takeChunk(answer, chunk, meter) ?? finish;
      waitFor();
      view.drawSoon();
      follow();
      speaker.hear(answer.text.slice(start), false);
      if (performance.now() - saved > saveMs) {
        history.save(run.conversation);
        saved = performance.now();
      }
    }
  } catch (e) {
    if (e.name === 'AbortError') finish = 'stopped';
    else answer.error = e instanceof ApiError ? e.message : `This page failed: ${e.message}`;
    if (e.status === 401) model = null;
  }
  clearTimeout(pause);
  view.pause = null;
  answer.stats = meter?.stats() ?? null;
  answer.finish = finish;
  speaker.hear(answer.text.slice(start), true);
}

function setRunning(run) {
  running = run;
  byId('send').hidden = Boolean(run);
  byId('stop-answer').hidden = !run;
}

/** Answer message `end` - 1 with a new version of message `end`, or go on with the one that is there. */
async function answerTo(end, goesOn = false) {
  if (running) return;
  notice(null);
  if (!model) {
    await begin();
    if (!model) return;
  }
  const request = requestOf(end, goesOn);
  let message = conversation.messages[end];
  if (!message) {
    message = { role: 'assistant', versions: [], at: -1 };
    conversation.messages.push(message);
  }
  if (!goesOn) message.at = message.versions.push({ text: '', thoughts: '', finish: null, error: null, stats: null }) - 1;
  const answer = shown(message);
  Object.assign(answer, { finish: null, error: null });
  if (!views[end]) addView(message, end);
  const run = { conversation, view: views[end], answer, controller: new AbortController() };
  setRunning(run);
  run.view.draw();
  follow(true);
  history.save(conversation);
  showList();
  run.ended = receive(request, run).then(() => finishRun(run));
}

function finishRun(run) {
  setRunning(null);
  run.view.draw();
  follow();
  history.save(run.conversation);
}

function stop() {
  running?.controller.abort();
}

/** Before the conversation is changed or left: stop, and wait until what came is saved. */
async function halt() {
  stop();
  await running?.ended;
}

// ---- the conversation ----

function addView(message, index) {
  const view = new MessageView(message, {
    again: async () => {
      await halt();
      cut(index + 1);
      answerTo(index);
    },
    more: () => answerTo(index, true),
    edit: async (text) => {
      await halt();
      cut(index);
      ask(text);
    },
    choose: (step) => {
      message.at += step;
      history.save(conversation);
      view.draw();
    },
  });
  views[index] = view;
  byId('messages').append(view.root);
}

/** Drop message `end` and all after it. */
function cut(end) {
  conversation.messages.length = Math.min(conversation.messages.length, end);
  for (const view of views.splice(end)) view.root.remove();
}

function ask(text) {
  if (running || text.trim() === '') return;
  if (conversation.messages.length === 0) conversation.title = text.trim().replace(/\s+/g, ' ').slice(0, titleLength);
  const message = { role: 'user', text };
  conversation.messages.push(message);
  addView(message, conversation.messages.length - 1);
  byId('welcome').hidden = true;
  answerTo(conversation.messages.length);
}

function show(next) {
  conversation = next;
  openId.set(next.id);
  views = [];
  byId('messages').replaceChildren();
  conversation.messages.forEach((m, i) => {
    for (const answer of m.versions ?? []) answer.finish ??= 'lost'; // the page was closed while it ran
    addView(m, i);
  });
  byId('welcome').hidden = conversation.messages.length > 0;
  notice(null);
  showList();
  if (conversation.messages.length) follow(true);
  else log.scrollTop = 0;
}

async function openSaved(id) {
  await halt();
  const saved = history.load(id);
  if (saved) show(saved);
  closeDrawers();
  byId('prompt').focus();
}

async function confirmed(question) {
  const dialog = byId('confirm');
  byId('confirm-text').textContent = question;
  dialog.returnValue = '';
  dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener('close', resolve, { once: true }));
  return dialog.returnValue === 'yes';
}

async function remove(entry) {
  if (!(await confirmed(`Delete “${entry.title}”?`))) return;
  await halt();
  history.remove(entry.id);
  if (entry.id === conversation.id) show(newConversation());
  else showList();
}

async function forget() {
  if (!(await confirmed('Delete all conversations?'))) return;
  await halt();
  for (const { id } of [...history.entries]) history.remove(id);
  show(newConversation());
}

function showList() {
  byId('conversations').replaceChildren(...history.entries.map((entry) =>
    el('li', null,
      el('button.entry', { type: 'button', 'aria-current': entry.id === conversation.id ? 'true' : null,
        onclick: () => openSaved(entry.id) }, entry.title),
      iconButton('trash', `Delete ${entry.title}`, () => remove(entry)))));
}

// ---- the page ----

const isWide = matchMedia('(min-width: 56rem)');
const log = byId('log');
let isFollowing = true;

function follow(always = false) {
  if (always) isFollowing = true;
  if (isFollowing) requestAnimationFrame(() => isFollowing && (log.scrollTop = log.scrollHeight));
}

function noteScroll() {
  const below = log.scrollHeight - log.clientHeight - log.scrollTop;
  isFollowing = below < 60;
  byId('to-end').hidden = isFollowing;
}

/** Side and panel are beside the conversation where there is room, and over it where not. */
function setDrawer(id, isOpen) {
  const drawer = byId(id);
  const button = byId(`open-${id}`);
  const wasOpen = button.getAttribute('aria-expanded') === 'true';
  if (id === 'side' && isWide.matches) isOpen = false; // it is always there
  drawer.classList.toggle('open', isOpen);
  drawer.hidden = id === 'panel' ? !isOpen : !isOpen && !isWide.matches;
  button.setAttribute('aria-expanded', String(isOpen));
  byId('backdrop').hidden = isWide.matches || !document.querySelector('.side.open, .panel.open');
  if (isOpen && !wasOpen) drawer.querySelector('button:not([hidden]), textarea').focus();
  if (!isOpen && wasOpen && drawer.contains(document.activeElement)) button.focus();
}

function closeDrawers() {
  setDrawer('side', false);
  if (!isWide.matches) setDrawer('panel', false);
}

async function newChat() {
  await halt();
  show(newConversation());
  closeDrawers();
  byId('prompt').focus();
}

function grow() {
  const box = byId('prompt');
  box.rows = Math.min(10, Math.max(1, box.value.split('\n').length));
}

function sendPrompt() {
  const box = byId('prompt');
  if (running || box.value.trim() === '') return;
  const text = box.value;
  box.value = '';
  grow();
  ask(text);
}

function editLast() {
  const index = conversation.messages.findLastIndex((m) => m.role === 'user');
  if (index >= 0 && !running) views[index].edit();
}

function onKey(e) {
  if (document.querySelector('dialog[open]')) return;
  const isControl = e.ctrlKey || e.metaKey;
  if (e.key === 'Escape') {
    if (running) stop();
    else if (!byId('backdrop').hidden) closeDrawers();
    else if (!byId('panel').hidden) setDrawer('panel', false);
    else return;
  } else if (isControl && e.key === '/') byId('keys').showModal();
  else if (isControl && e.shiftKey && e.key.toLowerCase() === 'o') newChat();
  else if (isControl && e.key === ',') setDrawer('panel', byId('panel').hidden);
  else return;
  e.preventDefault();
}

function onPromptKey(e) {
  if (e.isComposing) return;
  if (e.key === 'Enter' && !e.shiftKey) {
    e.preventDefault();
    sendPrompt();
  } else if (e.key === 'ArrowUp' && e.target.value === '') {
    e.preventDefault();
    editLast();
  }
}

function wire() {
  const on = (id, event, act) => byId(id).addEventListener(event, act);
  on('composer', 'submit', (e) => {
    e.preventDefault();
    sendPrompt();
  });
  on('prompt', 'keydown', onPromptKey);
  on('prompt', 'input', grow);
  on('stop-answer', 'click', stop);
  on('new', 'click', newChat);
  on('forget', 'click', forget);
  on('show-keys', 'click', () => byId('keys').showModal());
  on('open-side', 'click', () => setDrawer('side', true));
  on('close-side', 'click', () => setDrawer('side', false));
  on('open-panel', 'click', () => setDrawer('panel', byId('panel').hidden));
  on('close-panel', 'click', () => setDrawer('panel', false));
  on('backdrop', 'click', closeDrawers);
  on('log', 'scroll', noteScroll);
  on('to-end', 'click', () => follow(true));
  history.onChange(showList);
  isWide.addEventListener('change', closeDrawers);
  document.addEventListener('keydown', onKey);
  document.addEventListener('settingsreset', () => model && settings.limit(model.context));
  addEventListener('pagehide', () => conversation.messages.length && history.save(conversation));
  byId('examples').replaceChildren(...examples.map((text) =>
    el('li', null, el('button', { type: 'button', onclick: () => ask(text) }, text))));
}

/** Get to know the model; asks for the key when one is wanted. */
async function begin() {
  try {
    await withKey(meetModel);
    notice(null);
  } catch (e) {
    notice(e.message);
  }
}

async function main() {
  wire();
  closeDrawers();
  show(history.load(openId.get()) ?? newConversation());
  if (matchMedia('(min-width: 80rem)').matches) setDrawer('panel', true);
  byId('prompt').focus();
  await begin();
  await showState();
  setInterval(showState, stateMs);
}

main();
