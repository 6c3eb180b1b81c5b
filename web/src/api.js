// api.js - the server's API, on the page's own origin.
//
// Addresses are relative to the page, so they hold behind any prefix of a reverse proxy: <meta name="base"> says
// how far up the API is.

const base = document.querySelector('meta[name=base]').content;
const keyName = 'llmd.key';

/** An answer that is not 2xx; .status is 0 when there was none. */
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The API key, for as long as the tab is open. */
export const key = {
  get: () => sessionStorage.getItem(keyName) ?? '',
  set: (value) => sessionStorage.setItem(keyName, value),
};

function headers(hasBody) {
  return {
    ...(hasBody && { 'Content-Type': 'application/json' }),
    ...(key.get() && { Authorization: `Bearer ${key.get()}` }),
  };
}

/** The words of an error in any of the server's dialects. */
export function errorText(body, status) {
  try {
    const json = typeof body === 'string' ? JSON.parse(body) : body;
    const e = json.error?.message ?? json.error ?? json.message ?? json.detail;
    if (typeof e === 'string' && e) return e;
  } catch {
    /* no JSON */
  }
  return `The server answered with status ${status}.`;
}

async function send(path, body, signal) {
  let answer;
  try {
    answer = await fetch(base + path, {
      method: body ? 'POST' : 'GET',
      headers: headers(Boolean(body)),
      body: body && JSON.stringify(body),
      signal,
      cache: 'no-store',
    });
  } catch (e) {
    if (e.name === 'AbortError') throw e;
    throw new ApiError(0, 'The server does not answer.');
  }
  if (!answer.ok) throw new ApiError(answer.status, errorText(await answer.text(), answer.status));
  return answer;
}

export const getJson = async (path, signal) => (await send(path, null, signal)).json();
export const postJson = async (path, body, signal) => (await send(path, body, signal)).json();

/** The state that /health/ready tells, whatever its status; null when nobody answers. */
export async function readiness() {
  try {
    return await (await fetch(`${base}health/ready`, { cache: 'no-store' })).json();
  } catch {
    return null;
  }
}

/** The `data:` lines of a stream of server-sent events, as they come; the server writes each in one line. */
async function* eventData(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split('\n');
    rest = lines.pop();
    for (const line of lines) if (line.startsWith('data:')) yield line.slice(5).trim();
  }
}

/** Each chunk of a streamed completion.  Throws when the stream breaks off, or says an error. */
export async function* streamCompletion(path, body, signal) {
  const answer = await send(path, body, signal);
  let isWhole = false;
  try {
    for await (const data of eventData(answer.body)) {
      if (data === '[DONE]') {
        isWhole = true;
        continue;
      }
      const chunk = JSON.parse(data);
      if (chunk.error) throw new ApiError(chunk.error.code ?? 500, errorText(chunk, 500));
      yield chunk;
    }
  } catch (e) {
    if (e.name === 'AbortError' || e instanceof ApiError) throw e;
    throw new ApiError(0, 'The connection was lost.');
  }
  if (!isWhole) throw new ApiError(0, 'The answer broke off.');
}
