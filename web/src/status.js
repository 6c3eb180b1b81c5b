// status.js - the status page: asks /ui/status.json each second and draws what has changed.
import { getJson, key } from './api.js';
import { Chart } from './charts.js';
import { byId, el } from './dom.js';
import { happenings, quantile, rate, sum, Samples } from './samples.js';

const everyMs = 1000;
const latencySeconds = 10; // quantiles are of so long a while
const spans = [['1 min', 60], ['5 min', 300], ['15 min', 900]];

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const precise = new Intl.NumberFormat('en', { maximumSignificantDigits: 3 });
const clock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });

const count = (v) => (Math.abs(v) < 10 && !Number.isInteger(v) ? precise.format(v) : whole.format(v));

function seconds(v) {
  if (v === 0) return '0';
  if (v < 0.001) return `${precise.format(v * 1e6)} µs`;
  return v < 1 ? `${precise.format(v * 1000)} ms` : `${precise.format(v)} s`;
}

function duration(s) {
  const parts = [[86400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']];
  const first = parts.findIndex(([n]) => s >= n);
  if (first < 0) return '0 s';
  const [n, unit] = parts[first];
  const next = parts[first + 1];
  const rest = next ? Math.floor((s % n) / next[0]) : 0;
  return `${Math.floor(s / n)} ${unit}${rest ? ` ${rest} ${next[1]}` : ''}`;
}

// ---- numbers ----

const perSecond = (name) => (samples) =>
  samples.newest === samples.before(1) ? null : rate(samples.before(1), samples.newest, (state) => sum(state, name));
const now = (name) => (samples) => sum(samples.newest.state, name);
const latency = (name, q) => (samples) => quantile(samples.before(latencySeconds), samples.newest, name, q);
const ofGateway = (name) => (samples) => samples.newest.state.gateway[name];

const marks = [];
const charts = [
  new Chart('Tokens per second', [{ label: 'generated', value: perSecond('generated_tokens') },
    { label: 'prompt', value: perSecond('prompt_tokens') }], count, marks),
  new Chart('Time to the first token', [{ label: 'median', value: latency('time_to_first_token_seconds', 0.5) },
    { label: '99 %', value: latency('time_to_first_token_seconds', 0.99) }], seconds, marks),
  new Chart('Time between tokens', [{ label: 'median', value: latency('inter_token_latency_seconds', 0.5) },
    { label: '99 %', value: latency('inter_token_latency_seconds', 0.99) }], seconds, marks),
  new Chart('Sequences', [{ label: 'running', value: now('sequences_running') },
    { label: 'waiting', value: now('sequences_waiting') }, { label: 'queued', value: ofGateway('requests_queued') }], count, marks),
  new Chart('KV pages', [{ label: 'in use', value: now('kv_pages_leased') },
    { label: 'kept for prompts to come', value: now('kv_pages_cached') }], count, marks),
  new Chart('One forward pass', [{ label: 'median', value: latency('step_seconds', 0.5) },
    { label: '99 %', value: latency('step_seconds', 0.99) }], seconds, marks),
];

// ---- what stands in words ----

function tiles(samples) {
  const { state } = samples.newest;
  const up = state.groups.filter((g) => g.up).length;
  const pages = sum(state, 'kv_pages');
  const used = sum(state, 'kv_pages_leased');
  const first = latency('time_to_first_token_seconds', 0.5)(samples);
  const restarts = state.processes.reduce((n, p) => n + p.restarts, 0);
  const asked = sum(state, 'prefix_cache_queries');
  return [
    ['Model', state.model, `context ${whole.format(state.max_model_len)} tokens`],
    ['Groups in service', `${up} of ${state.groups.length}`, `up for ${duration(state.uptime_s)}`],
    ['Tokens per second', count(perSecond('generated_tokens')(samples) ?? 0), `${whole.format(sum(state, 'generated_tokens'))} in all`],
    ['First token', first === null ? '–' : seconds(first), `median of ${latencySeconds} s`],
    ['Requests now', whole.format(state.gateway.requests_active), `${state.gateway.requests_queued} queued, ${whole.format(state.requests_max)} at most`],
    ['KV pages in use', pages ? `${Math.round((100 * used) / pages)} %` : '–', `${whole.format(used)} of ${whole.format(pages)}`],
    ['Prefix cache', asked ? `${Math.round((100 * sum(state, 'prefix_cache_hits')) / asked)} %` : '–', 'of prompt tokens'],
    ['Restarts', whole.format(restarts), `sequences taken over: ${whole.format(sum(state, 'sequences_recovered'))}`],
  ];
}

function showTiles(samples) {
  byId('tiles').replaceChildren(...tiles(samples).map(([name, value, note]) =>
    el('div.tile', null, el('dt', null, name), el('dd', { title: value }, value, el('span.note', null, note)))));
}

function processRow(p) {
  const cells = [p.pid || '–', p.restarts, p.pid ? duration(p.uptime_s) : '–', p.pid ? `${p.heartbeat_age_s.toFixed(1)} s` : '–',
    p.rank === undefined ? '' : p.step_average_s ? seconds(p.step_average_s) : '–'];
  return el('tr', null, el('th', { scope: 'row' }, p.name),
    el('td', null, el('span.pill', { 'data-state': p.state }, p.state)),
    ...cells.map((text) => el('td.n', null, String(text))), el('td', null, p.last_exit || 'never'));
}

function showState(state) {
  byId('state').dataset.state = state.state;
  byId('state').textContent = state.state[0].toUpperCase() + state.state.slice(1);
  byId('notice').hidden = !state.cause;
  byId('notice').textContent = state.cause ?? '';
  byId('processes').replaceChildren(...state.processes.map(processRow));
}

function showHappening(time, text) {
  byId('no-events')?.remove();
  marks.push(time);
  byId('events').prepend(el('li', null, el('time', { datetime: new Date(time * 1000).toISOString() }, clock.format(time * 1000)), text));
  while (byId('events').childElementCount > 50) byId('events').lastChild.remove();
}

// ---- each second ----

const samples = new Samples();
let isAnswering = true;

function take(time, state) {
  const before = samples.newest;
  if (before && before.state.uptime_s > state.uptime_s + 1) {
    showHappening(time, 'The service was started anew.');
    samples.clear();
  } else if (before) for (const text of happenings(before.state, state)) showHappening(time, text);
  samples.add(time, state);
  showState(state);
  showTiles(samples);
  for (const chart of charts) chart.add(time, samples);
}

function miss(time, error) {
  byId('state').dataset.state = 'unknown';
  byId('state').textContent = 'No answer';
  byId('notice').textContent = error.message;
  byId('notice').hidden = false;
  for (const chart of charts) chart.add(time, null);
  if (isAnswering) showHappening(time, error.message);
}

async function poll() {
  const begun = performance.now();
  try {
    const state = await getJson('ui/status.json');
    take(Date.now() / 1000, state);
    isAnswering = true;
    byId('key-form').hidden = true;
  } catch (e) {
    if (e.status === 401) {
      byId('key-form').hidden = false;
      byId('state').textContent = 'Locked';
      return; // until there is a key
    }
    miss(Date.now() / 1000, e);
    isAnswering = false;
  }
  setTimeout(poll, Math.max(100, everyMs - (performance.now() - begun)));
}

function choose(span) {
  for (const chart of charts) chart.span = span;
  for (const button of byId('spans').children) button.setAttribute('aria-pressed', String(Number(button.dataset.span) === span));
}

byId('spans').append(...spans.map(([name, span]) =>
  el('button', { type: 'button', dataset: { span }, onclick: () => choose(span) }, name)));
byId('charts').append(...charts.map((chart) => chart.root));
choose(60);
byId('key-form').addEventListener('submit', (e) => {
  e.preventDefault();
  key.set(byId('key').value.trim());
  poll();
});
document.addEventListener('themechange', () => charts.forEach((c) => c.renew()));
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => charts.forEach((c) => c.renew()));
poll();
