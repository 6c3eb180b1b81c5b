// samples.js - from totals that only grow, as /ui/status.json has them, to what is drawn: rates, quantiles, restarts.
//
// Nothing here knows the page.

/** Sum of a number over the groups. */
export const sum = (state, name) => state.groups.reduce((n, g) => n + g[name], 0);

/** What was counted between two samples, per second. */
export function rate(before, now, total) {
  const seconds = now.time - before.time;
  return seconds > 0 ? Math.max(0, (total(now.state) - total(before.state)) / seconds) : null;
}

/** The q-quantile of what a histogram counted between two samples, linear within a bucket; null when that was nothing. */
export function quantile(before, now, name, q) {
  const { bounds, counts } = now.state.histograms[name];
  const old = before.state.histograms[name].counts;
  const fresh = counts.map((n, i) => Math.max(0, n - old[i]));
  const total = fresh.reduce((a, b) => a + b, 0);
  let below = 0;
  if (total === 0) return null;
  for (let i = 0; i < fresh.length; i++) {
    if (below + fresh[i] >= q * total) {
      const from = i > 0 ? bounds[i - 1] : 0;
      const to = bounds[i] ?? from; // past the last bound nothing is known
      return from + (to - from) * ((q * total - below) / fresh[i]);
    }
    below += fresh[i];
  }
  return null;
}

/** What happened to processes between two states, in words. */
export function happenings(before, now) {
  const old = new Map(before.processes.map((p) => [p.name, p]));
  const list = [];
  for (const p of now.processes) {
    const was = old.get(p.name);
    if (!was) continue;
    if (p.restarts > was.restarts)
      list.push(`${p.name} was started again, restart ${p.restarts}${p.last_exit ? `: ${p.last_exit}` : ''}`);
    else if (p.pid !== was.pid && p.pid !== 0 && was.pid !== 0) list.push(`${p.name} was replaced`);
  }
  return list;
}

/** The samples of the last while: at least two as soon as there are, the oldest at least `seconds` old where there is one. */
export class Samples {
  #list = [];

  add(time, state) {
    this.#list.push({ time, state });
    while (this.#list.length > 2 && this.#list[1].time < time - 60) this.#list.shift();
  }

  get newest() {
    return this.#list.at(-1);
  }

  before(seconds) {
    const at = this.newest.time - seconds;
    return this.#list.findLast((s) => s.time <= at + 0.25) ?? this.#list[0];
  }

  clear() {
    this.#list = [];
  }
}
