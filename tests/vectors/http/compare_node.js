// compare_node.js - what node's HTTP server (llhttp, strict mode) makes of a corpus of requests.
//
//     node tests/vectors/http/compare_node.js > tests/vectors/http/node.txt
//
// The corpus is written down below, plus single-byte mutations of it chosen by a fixed generator, so the
// file changes only with node.  test_http_vectors.c reads it: whatever our parser accepts must mean
// the same to node.  Format, bytes escaped as \xNN:
//     < input
//     = METHOD path?query HTTP/1.x host=... keep=0|1 [Name: value|...] "body"      for each request
//     ! HPE_CODE                                                                   if node then refused
'use strict';
const http = require('http');
const net = require('net');

const N_MUTATIONS = 700;
const H = 'Host: x\r\n';
const get = (fields) => `GET / HTTP/1.1\r\n${fields}\r\n`;
const post = (fields, body) => `POST / HTTP/1.1\r\n${H}${fields}\r\n${body}`;
const chunked = (body) => post('Transfer-Encoding: chunked\r\n', body);

const corpus = [
  get(H), '\r\n' + get(H), '\r\n\r\n' + get(H), '\n' + get(H), ' ' + get(H),
  `GET /a%20b?c=d?e HTTP/1.1\r\n${H}\r\n`, `GET /?a#b HTTP/1.1\r\n${H}\r\n`,
  `GET http://y:80/p?q HTTP/1.1\r\n${H}\r\n`, `GET http://y HTTP/1.1\r\n${H}\r\n`,
  `GET ftp://y/ HTTP/1.1\r\n${H}\r\n`, `GET http:///a HTTP/1.1\r\n${H}\r\n`,
  `GET http://u@y/ HTTP/1.1\r\n${H}\r\n`, `GET a HTTP/1.1\r\n${H}\r\n`,
  `OPTIONS * HTTP/1.1\r\n${H}\r\n`, `GET * HTTP/1.1\r\n${H}\r\n`, `GET /%zz HTTP/1.1\r\n${H}\r\n`,
  `GET /\x80 HTTP/1.1\r\n${H}\r\n`, `GET /{"a":1} HTTP/1.1\r\n${H}\r\n`, `GET /\x01 HTTP/1.1\r\n${H}\r\n`,
  'GET /\r\n', `GET  / HTTP/1.1\r\n${H}\r\n`, `GET /  HTTP/1.1\r\n${H}\r\n`, `GET\t/ HTTP/1.1\r\n${H}\r\n`,
  `GET / HTTP/1.1 \r\n${H}\r\n`, `GET / HTTP/1.2\r\n${H}\r\n`, `GET / HTTP/2.0\r\n${H}\r\n`,
  `GET / http/1.1\r\n${H}\r\n`, `GET / HTTP/1.10\r\n${H}\r\n`, `BREW / HTTP/1.1\r\n${H}\r\n`,
  `get / HTTP/1.1\r\n${H}\r\n`, `PATCH /p HTTP/1.1\r\n${H}\r\n`, `TRACE / HTTP/1.1\r\n${H}\r\n`,
  `HEAD / HTTP/1.1\r\n${H}\r\n`, `DELETE /d HTTP/1.1\r\n${H}\r\n`, `PUT /p HTTP/1.1\r\n${H}\r\n`,
  'GET / HTTP/1.0\r\n\r\n', 'GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n' + get(H),
  get(''), get(H + H), get('Host: a b\r\n'), get('Host:\r\n'), get('hOST: \t x \t\r\n'),
  get(H + 'A: b \t c\r\n'), get(H + 'A:\r\n'), get(H + 'A:  \t \r\n'), get(H + 'A: \xc3\xa9\r\n'),
  get(H + 'A: b\0c\r\n'), get(H + 'A: \x7f\r\n'), get(H + 'A: \x1f\r\n'), get(H + 'A: b\rc\r\n'),
  get(H + 'A: b\nC: d\r\n'), get(H + 'A : b\r\n'), get(H + ': b\r\n'), get(H + 'A\r\n'),
  get(H + 'A: b\r\n c\r\n'), get(H + 'A: b\r\n\tc\r\n'), get(' Host: x\r\n'),
  get(H + "!#$%&'*+-.^_`|~09azAZ: b\r\n"), get(H + 'A/b: c\r\n'), get(H + 'A;b: c\r\n'),
  get(H + 'Connection: close\r\n') + get(H), get(H + 'Connection: te, CLOSE\r\n') + get(H),
  get(H + 'Connection: keep-alive\r\nConnection: close\r\n') + get(H),
  get(H + 'Connection: closed, enclose\r\n') + get(H),
  'GET / HTTP/1.1\nHost: x\n\n', `GET / HTTP/1.1\r\n${H}\n`, `GET / HTTP/1.1\r\r\n${H}\r\n`,
  post('Content-Length: 5\r\n', 'hello'), post('Content-Length: 0\r\n', ''), post('', ''),
  post('Content-Length: 5\r\n', 'hel'), post('Content-Length: 05\r\n', 'hello'),
  post('Content-Length:\r\n', ''), post('Content-Length: +5\r\n', 'hello'),
  post('Content-Length: -5\r\n', 'hello'), post('Content-Length: 0x5\r\n', 'hello'),
  post('Content-Length: 5, 5\r\n', 'hello'), post('Content-Length: 5 5\r\n', 'hello'),
  post('Content-Length: 5\r\nContent-Length: 5\r\n', 'hello'),
  post('Content-Length: 5\r\nContent-Length: 6\r\n', 'hello!'),
  post('Content-Length: 18446744073709551621\r\n', 'hello'),
  post('Content-Length: 9223372036854775808\r\n', 'hello'),
  post('Content-Length: 5\r\nTransfer-Encoding: chunked\r\n', '0\r\n\r\n'),
  post('Transfer-Encoding: chunked\r\nContent-Length: 5\r\n', '0\r\n\r\n'),
  post('Transfer-Encoding: xchunked\r\n', '0\r\n\r\n'), post('Transfer-Encoding: identity\r\n', ''),
  post('Transfer-Encoding:\r\n', ''), post('Transfer-Encoding: chunked, chunked\r\n', '0\r\n\r\n'),
  post('Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n', '0\r\n\r\n'),
  post('Transfer-Encoding: gzip, chunked\r\n', '0\r\n\r\n'), post('Transfer-Encoding: chunked, gzip\r\n', ''),
  post('Transfer-Encoding: CHUNKED\r\n', '1\r\na\r\n0\r\n\r\n'),
  'POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
  post('Expect: 100-continue\r\nContent-Length: 1\r\n', 'a'),
  post('Expect: 200-ok\r\nContent-Length: 1\r\n', 'a'),
  chunked('3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n') + get(H), chunked('A\r\n0123456789\r\n000\r\n\r\n'),
  chunked('5\r\n0\r\n\r\n\r\n0\r\n\r\n'), chunked('1;a\r\nx\r\n0;b="c"\r\n\r\n'),
  chunked('1;a=b;c\r\nx\r\n0\r\n\r\n'), chunked('1;\r\nx\r\n0\r\n\r\n'), chunked('1 ;a\r\nx\r\n0\r\n\r\n'),
  chunked('1; a\r\nx\r\n0\r\n\r\n'), chunked('1;a\nx\r\n0\r\n\r\n'), chunked('1;a\rx\r\n0\r\n\r\n'),
  chunked('1;"\r\nx\r\n0\r\n\r\n'), chunked('0x1\r\na\r\n0\r\n\r\n'), chunked('+1\r\na\r\n0\r\n\r\n'),
  chunked('1 \r\na\r\n0\r\n\r\n'), chunked(' 1\r\na\r\n0\r\n\r\n'), chunked('1\na\r\n0\r\n\r\n'),
  chunked('1\r\nab\r\n0\r\n\r\n'), chunked('1\r\na\n0\r\n\r\n'), chunked('\r\n'), chunked(';a\r\n'),
  chunked('00000000000000001\r\na\r\n0\r\n\r\n'), chunked('ffffffffffffffff\r\na'),
  chunked('10000000000000001\r\na\r\n0\r\n\r\n'), chunked('1\r\na\r\n0\r\n'), chunked('0\r\nA: b\r\nC:\r\n\r\n'),
  chunked('0\r\nA: b\r\n c\r\n\r\n'), chunked('0\r\nA b\r\n\r\n'), chunked('0\r\nA: \0\r\n\r\n'),
  chunked('0\r\nA: b\n\r\n'), chunked('0\r\n\n'), chunked('0\r\nContent-Length: 5\r\n\r\n') + get(H),
  get(H) + post('Content-Length: 1\r\n', 'a') + get(H) + 'GET',
];

function mutate(inputs, n) {
  const bytes = ['\r', '\n', '\t', ' ', '\0', ':', ';', ',', '\x80', 'a', '0', '\x7f', '/', '"', '%'];
  const seeds = inputs.filter((s) => s.length < 140);
  const out = [];
  let state = 20260101;
  const next = (max) => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return (state >>> 8) % max;
  };
  while (out.length < n) {
    const s = seeds[next(seeds.length)];
    const at = next(s.length);
    const how = next(3);
    out.push(s.slice(0, at) + (how ? bytes[next(bytes.length)] : '') + s.slice(at + (how !== 1 ? 1 : 0)));
  }
  return out;
}

const escape = (s) => s.replace(/[^ -~]|[\\"|]/g,
  (c) => '\\x' + c.charCodeAt(0).toString(16).padStart(2, '0'));

function describe(req, body, keep, waits) {
  const fields = [];
  let target = req.url;
  let host = req.headers.host || '';
  for (let i = 0; i < req.rawHeaders.length; i += 2)
    fields.push(escape(req.rawHeaders[i]) + ': ' + escape(req.rawHeaders[i + 1]));
  const absolute = /^https?:\/\/([^/?]*)(.*)$/is.exec(target);
  if (absolute) {
    host = absolute[1];
    target = absolute[2].startsWith('/') ? absolute[2] : '/' + absolute[2];
  }
  target = target.replace(/\?$/, '');
  const has_body = req.headers['transfer-encoding'] || Number(req.headers['content-length']) > 0;
  return `${req.method} ${escape(target)} HTTP/${req.httpVersion} host=${escape(host)} ` +
    `keep=${keep ? 1 : 0}${waits && has_body ? ' continue' : ''} [${fields.join('|')}] "${escape(body)}"`;
}

function ask(port, server, input) {
  return new Promise((resolve) => {
    const seen = [];
    const onRequest = (waits) => (req, res) => {
      const parts = [];
      const keep = res.shouldKeepAlive;
      req.on('error', () => {});
      req.on('data', (d) => parts.push(d));
      req.on('end', () => {
        if (req.complete)
          seen.push('= ' + describe(req, Buffer.concat(parts).toString('latin1'), keep, waits));
        res.end();
      });
    };
    server.removeAllListeners();
    server.on('connection', server.attach);
    server.on('request', onRequest(false));
    server.on('checkContinue', onRequest(true));
    server.on('clientError', (e, socket) => {
      // Later: the requests before the bad one are still on their way through node's streams.
      setTimeout(() => {
        if (e.code !== 'HPE_INVALID_EOF_STATE' && e.code !== 'ECONNRESET')
          seen.push('! ' + e.code);
        socket.destroy();
      }, 10);
    });
    const socket = net.connect(port, '127.0.0.1', () => socket.end(Buffer.from(input, 'latin1')));
    const done = () => setTimeout(() => resolve(seen), 2);
    let timer = setTimeout(() => socket.destroy(), 500);
    let answer = '';
    socket.on('data', (d) => { answer += d.toString('latin1'); });
    socket.on('error', () => {});
    socket.on('close', () => {
      clearTimeout(timer);
      if (/^HTTP\/1.1 4\d\d /m.test(answer) && !seen.some((s) => s[0] === '!'))
        seen.push('! ' + /^HTTP\/1.1 (4\d\d) /m.exec(answer)[1]);
      done();
    });
  });
}

async function main() {
  const server = http.createServer({ keepAliveTimeout: 50 });
  server.attach = server.listeners('connection')[0];
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const port = server.address().port;
  process.stdout.write(`# by compare_node.js, node ${process.version}, llhttp ${process.versions.llhttp}\n`);
  for (const input of [...new Set([...corpus, ...mutate(corpus, N_MUTATIONS)])]) {
    const seen = await ask(port, server, input);
    process.stdout.write(`< ${escape(input)}\n${seen.map((s) => s + '\n').join('')}`);
  }
  process.exit(0);
}
main();
