// build.mjs - bundle src/ into dist/: one script a page, one style sheet, and the licences of what is in them.
import { build } from 'esbuild';
import { copyFile, mkdir, readdir, readFile, writeFile } from 'node:fs/promises';

const pages = ['index.html', 'status.html', 'docs.html'];

async function licences(inputs) {
  const packages = new Set();
  for (const path of Object.keys(inputs)) {
    const found = /node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(path);
    if (found) packages.add(found[1]);
  }
  const texts = [];
  for (const name of [...packages].sort()) {
    const folder = `node_modules/${name}`;
    const { version } = JSON.parse(await readFile(`${folder}/package.json`));
    const files = (await readdir(folder)).filter((f) => /^licen[cs]e/i.test(f));
    if (files.length === 0) throw new Error(`${name} has no licence file`);
    for (const file of files) texts.push(`${name} ${version}\n\n${await readFile(`${folder}/${file}`, 'utf8')}`);
  }
  return texts.join(`\n${'-'.repeat(80)}\n\n`);
}

await mkdir('dist/assets', { recursive: true });
const { metafile } = await build({
  entryPoints: ['src/chat.js', 'src/status.js', 'src/docs.js', 'src/theme.js', 'src/style.css', 'src/charts.css'],
  outdir: 'dist/assets',
  bundle: true,
  minify: true,
  format: 'iife',
  target: ['chrome110', 'firefox115', 'safari16'],
  legalComments: 'none', // licences() has them whole
  metafile: true,
  logLevel: 'warning',
});
await writeFile('dist/assets/licences.txt', await licences(metafile.inputs));
await copyFile('src/icon.svg', 'dist/assets/icon.svg');
for (const page of pages) await copyFile(`src/${page}`, `dist/${page}`);
