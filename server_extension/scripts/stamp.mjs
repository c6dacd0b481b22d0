// Writes the digest of the sources beside what was built of them; tests/test_assets.py compares it without Node.
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';

const SOURCES = [
  'package-lock.json', 'package.json', 'rspack.config.cjs', 'schema', 'scripts', 'src', 'style', 'tsconfig.json',
  'tsconfig.lab.json', 'vite.displays.config.mjs', 'vite.page.config.mjs', 'vite.viewer.config.mjs'
];
const files = path => (statSync(path).isDirectory() ? readdirSync(path).flatMap(name => files(`${path}/${name}`)) : [path]);
const hash = createHash('sha256');
for (const file of SOURCES.flatMap(files).sort()) {
  hash.update(`${file}\0`).update(readFileSync(file, 'utf8').replaceAll('\r\n', '\n')).update('\0');
}
writeFileSync('../caterva2_jupyter/static/sources.sha256', `${hash.digest('hex')}\n`);
