// Writes the licences of what the viewer contains, as its authors ask: static/THIRD-PARTY.txt.
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { OUT } from './build.mjs';

const BUNDLED = ['@h5web/app', 'react', 'react-dom'];

function folderOf(name, from) {
  for (let place = from; ; place = dirname(place)) {
    const folder = join(place, 'node_modules', name);
    if (existsSync(join(folder, 'package.json'))) {
      return folder;
    }
    if (place === dirname(place) || !place) {
      return null;
    }
  }
}

const found = new Map();
function add(name, from) {
  const folder = folderOf(name, from);
  if (!folder || name.startsWith('@types/')) {
    return;
  }
  const form = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
  const key = `${form.name} ${form.version}`;
  if (found.has(key)) {
    return;
  }
  const file = readdirSync(folder).sort().find(entry => /^(licen[cs]e|copying)/i.test(entry));
  const text = file ? readFileSync(join(folder, file), 'utf8').replaceAll('\r\n', '\n').trim() : '(no text in the package)';
  found.set(key, `${key} (${form.license ?? 'see below'})\n\n${text}\n`);
  const optional = form.peerDependenciesMeta ?? {};
  const peers = Object.keys(form.peerDependencies ?? {}).filter(peer => !optional[peer]?.optional);
  for (const dependency of [...Object.keys(form.dependencies ?? {}), ...peers]) {
    add(dependency, folder);
  }
}
BUNDLED.forEach(name => add(name, process.cwd()));
const line = `\n${'-'.repeat(80)}\n\n`;
const head = `The viewer (viewer.js) contains these works, under their licences.\n`;
writeFileSync(`${OUT}/THIRD-PARTY.txt`, head + line + [...found.keys()].sort().map(key => found.get(key)).join(line));
console.log(`${found.size} works in THIRD-PARTY.txt`);
