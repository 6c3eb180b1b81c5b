// llmd.mjs - starts a whole server with the demo model, as a user would: llmd, or llm-init above it, which brings a dead
// llmd back.  The programs are those of LLMD_BIN.
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const bin = process.env.LLMD_BIN ?? new URL('../../build/release/bin', import.meta.url).pathname;
const modelPath = new URL('../../models/stories-demo', import.meta.url).pathname;

export const model = 'stories-demo';
const golden = JSON.parse(readFileSync(join(modelPath, 'golden.json'))).prompts;
export const goldenPrompts = golden.filter((g) => g.kind === 'plain');
export const goldenChats = golden.filter((g) => g.kind === 'chat');
export const goldenTokens = golden[0].greedy_ids.length;

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// The test's own limit of time is the deadline.
export async function until(condition) {
  while (!(await condition())) await pause(5);
}

async function freePort() {
  const listener = createServer();
  await new Promise((resolve) => listener.listen(0, '127.0.0.1', resolve));
  const { port } = listener.address();
  await new Promise((resolve) => listener.close(resolve));
  return port;
}

export function runs(pid) {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return stat[stat.lastIndexOf(')') + 2] !== 'Z';
  } catch {
    return false;
  }
}

// Processes whose parent is one of `pids`, and theirs.
function descendants(pids) {
  const found = [];
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
      const [state, parent] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      const name = stat.slice(stat.indexOf('(') + 1, stat.lastIndexOf(')'));
      if (pids.includes(Number(parent)) && state !== 'Z') found.push({ pid: Number(pid), name });
    } catch {
      // It has ended.
    }
  }
  return found.length ? [...found, ...descendants(found.map((p) => p.pid))] : found;
}

// A running server.  `settings`: words of llmd's command line.
export async function start({ settings = [], withInit = false, apiKey } = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'llmd-clients-'));
  const port = await freePort();
  const words = ['--model', modelPath, '--host', '127.0.0.1', '--port', String(port), '--runtime-dir', folder,
    '--log-level', 'warning', ...(apiKey ? ['--api-key', apiKey] : []), ...settings];
  const llmd = join(bin, 'llmd');
  const child = withInit
    ? spawn(join(bin, 'llm-init'), ['--', llmd, ...words], { stdio: ['ignore', 'inherit', 'inherit'] })
    : spawn(llmd, words, { stdio: ['ignore', 'inherit', 'inherit'] });
  const ended = new Promise((resolve) => child.once('exit', (code, signal) => resolve(signal ?? code)));
  let hasEnded = false;
  ended.then(() => (hasEnded = true));
  child.unref(); // a test that fails does not wait for it
  process.once('exit', () => hasEnded || child.kill('SIGTERM'));
  const url = `http://127.0.0.1:${port}`;
  const headers = apiKey ? { authorization: `Bearer ${apiKey}` } : {};

  const server = {
    url,
    // The one process of that name: llmd, llm-gateway, llm-worker.
    pidOf(name) {
      if (name === 'llmd' && !withInit) return child.pid;
      return descendants([child.pid]).find((p) => p.name === name)?.pid;
    },
    kill(name) {
      process.kill(server.pidOf(name), 'SIGKILL');
    },
    // The sum of a metric over its labels.
    async metric(name) {
      const page = await (await fetch(`${url}/metrics`, { headers })).text();
      return page.split('\n').filter((line) => line.startsWith(`${name} `) || line.startsWith(`${name}{`))
        .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' '))), 0);
    },
    async isReady() {
      try {
        return (await fetch(`${url}/health`)).ok;
      } catch (e) {
        if (hasEnded) throw new Error('the server has ended', { cause: e });
        return false;
      }
    },
    // Resolves when nothing is computed and no page is held any more.
    async idle() {
      for (const gauge of ['llmd_requests_active', 'llmd_sequences_running', 'llmd_kv_pages_pinned'])
        await until(async () => (await server.metric(gauge)) === 0);
    },
    // SIGTERM where it still runs; the exit code, or the signal that ended it.
    async stop() {
      child.ref();
      child.kill('SIGTERM');
      const code = await ended;
      rmSync(folder, { recursive: true, force: true });
      return code;
    },
  };
  await until(server.isReady);
  return server;
}
