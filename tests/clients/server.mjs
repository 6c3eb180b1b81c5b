// server.mjs - starts tests/clients/serve.c, and what all clients ask of it.
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

const program = process.env.LLMD_SERVE ?? '../../build/release/bin/serve_scripted';

export const model = 'stories-demo';
export const scripted = 20240726; // FAKE_SCRIPT_SEED
export const script = {
  reasoning: '\nI need to look.\n',
  text: 'Let me see.\n',
  calls: [
    ['weather', { city: 'Zürich', days: [1, 2] }],
    ['clock', {}],
  ],
};
export const functions = ['weather', 'clock'].map((name) => ({
  name,
  description: `The ${name}`,
  parameters: { type: 'object', properties: {} },
}));
export const tools = functions.map((f) => ({ type: 'function', function: f }));

export async function start() {
  const child = spawn(program, { stdio: ['pipe', 'pipe', 'inherit'] });
  const ended = new Promise((resolve) => child.once('exit', resolve));
  const port = await new Promise((resolve, reject) => {
    createInterface({ input: child.stdout }).on('line', (line) => {
      const found = /^port (\d+)$/.exec(line);
      if (found) resolve(Number(found[1]));
    });
    ended.then((code) => reject(new Error(`${program} ended with ${code}`)));
  });
  const url = `http://127.0.0.1:${port}`;
  return {
    url,
    async stop() {
      child.stdin.end();
      return ended;
    },
    // Resolves when nothing is computed any more; the test's own limit of time is the deadline.
    async idle() {
      for (;;) {
        const { server_load } = await (await fetch(`${url}/load`)).json();
        if (server_load === 0) return;
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
    },
  };
}
