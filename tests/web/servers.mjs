// servers.mjs - what the browser talks to: the real llmd, the real gateway with a worker that says what it is told, and a
// reverse proxy with a path prefix.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import http from 'node:http';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

export const bin = process.env.LLMD_BIN ?? new URL('../../build/release/bin', import.meta.url).pathname;
export const demo = new URL('../../models/stories-demo', import.meta.url).pathname;

/** Ask again until act() gives something; the test's own limit of time is the deadline. */
export async function until(act) {
  for (;;) {
    const found = await act();
    if (found) return found;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

async function freePort() {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

async function getJson(url, headers) {
  try {
    const answer = await fetch(url, { headers });
    return answer.ok ? await answer.json() : null;
  } catch {
    return null;
  }
}

class Server {
  constructor(url, headers = {}) {
    this.url = url;
    this.headers = headers;
  }

  json(path) {
    return getJson(this.url + path, this.headers);
  }

  /** Nothing is computed any more. */
  idle() {
    return until(async () => (await this.json('load'))?.server_load === 0);
  }

  process(name) {
    return until(async () => (await this.json('ui/status.json'))?.processes.find((p) => p.name === name));
  }
}

// What a failed test has left.
const leftovers = new Set();
process.on('exit', () => leftovers.forEach((folder) => rmSync(folder, { recursive: true, force: true })));

/** llmd and all its processes; settings as on its command line.  They end with this process, however it ends. */
export async function startLlmd({ model = demo, settings = [], key = null } = {}) {
  const folder = await mkdtemp(join(tmpdir(), 'llmd-web-'));
  leftovers.add(folder);
  const port = await freePort();
  const child = spawn('setpriv', ['--pdeathsig', 'TERM', join(bin, 'llmd'), '--host', '127.0.0.1', '--port', String(port), '--model', model, '--runtime-dir',
    join(folder, 'run'), ...(key ? ['--api-key', key] : []), ...settings],
  { stdio: ['ignore', 'inherit', 'inherit'], env: { ...process.env, LLMD_LOG_LEVEL: 'error' } });
  const ended = once(child, 'exit');
  const server = new Server(`http://127.0.0.1:${port}/`, key ? { Authorization: `Bearer ${key}` } : {});
  await until(async () => {
    if (child.exitCode !== null) throw new Error(`llmd ended with ${child.exitCode}`);
    return server.json('health/ready');
  });
  child.unref(); // one that a failed test has left does not keep this process
  server.stop = async () => {
    child.ref();
    child.kill('SIGTERM');
    await ended;
    await rm(folder, { recursive: true });
    leftovers.delete(folder);
    return child.exitCode;
  };
  return server;
}

/** tests/web/serve.c */
export async function startTold() {
  const child = spawn(join(bin, 'serve_told'), { stdio: ['pipe', 'pipe', 'ignore'] });
  const ended = once(child, 'exit');
  const lines = createInterface({ input: child.stdout });
  const port = await new Promise((resolve, reject) => {
    lines.on('line', (line) => /^port \d+$/.test(line) && resolve(Number(line.slice(5))));
    ended.then(([code]) => reject(new Error(`serve_told ended with ${code}`)));
  });
  const server = new Server(`http://127.0.0.1:${port}/`);
  const order = async (line) => {
    const done = once(lines, 'line');
    child.stdin.write(`${line}\n`);
    await done;
  };
  server.say = (text) => order(`say ${text.replaceAll('\\', '\\\\').replaceAll('\n', '\\n')}`);
  server.step = (micros) => order(`step ${micros}`);
  server.stop = async () => {
    child.stdin.end();
    return (await ended)[0];
  };
  return server;
}

/** Everything below PREFIX goes to the server, nothing else anywhere. */
export async function startProxy(target, prefix) {
  const server = http.createServer((req, res) => {
    if (!req.url.startsWith(prefix)) {
      res.writeHead(404).end();
      return;
    }
    const path = req.url.slice(prefix.length - 1);
    const on = http.request(new URL(path, target), { method: req.method, headers: req.headers }, (answer) => {
      res.writeHead(answer.statusCode, answer.headers);
      answer.pipe(res);
    });
    on.on('error', () => res.destroy());
    res.on('close', () => on.destroy());
    req.pipe(on);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${server.address().port}${prefix}`,
    stop: () => {
      server.closeAllConnections();
      server.close();
    },
  };
}
