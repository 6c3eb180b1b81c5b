// reporter.mjs - what cmocka would print of each test, for scripts/test-totals.awk, and "N passed, N failed" last.
const mark = { ok: '[       OK ]', failed: '[  FAILED  ]', skipped: '[  SKIPPED ]' };

const nameOf = (text) => text.toLowerCase().replace(/[^a-z0-9]+/g, '_');

function verdictOf(type, data) {
  if (data.skip !== undefined) return 'skipped';
  return type === 'test:pass' ? 'ok' : 'failed';
}

export default async function* report(source) {
  const n = { ok: 0, failed: 0, skipped: 0 };
  for await (const { type, data } of source) {
    if (type !== 'test:pass' && type !== 'test:fail') continue;
    const verdict = verdictOf(type, data);
    const { error, duration_ms: ms } = data.details;
    n[verdict]++;
    yield `[ RUN      ] ${nameOf(data.name)}\n`;
    if (verdict === 'failed') yield `${error?.cause?.stack ?? error?.stack ?? error}\n`;
    yield `${mark[verdict]} ${nameOf(data.name)} ${(ms / 1000).toFixed(1)} s\n`;
  }
  yield `${n.ok} passed, ${n.failed} failed${n.skipped ? `, ${n.skipped} skipped` : ''}\n`;
}
