// Files that are not arrays: text, Markdown, notebooks and images, made by anybody and therefore never more than text
// nodes and pictures, in a frame without scripts, origin or forms. SVG is shown as its text.
import { query } from '../transport';
import { shown } from '../text';
import { markdownNodes } from './markdown';
import { addressOf, Entry, nameOf, Service } from './service';

const MAX_TEXT_NBYTES = 2 * 2 ** 20;
const MAX_IMAGE_NBYTES = 32 * 2 ** 20;
const MAX_CELLS = 2000;

type Kind = 'text' | 'markdown' | 'notebook' | 'image';

const KINDS: Record<string, Kind> = {
  md: 'markdown', markdown: 'markdown', ipynb: 'notebook',
  png: 'image', jpg: 'image', jpeg: 'image', gif: 'image', webp: 'image', bmp: 'image', avif: 'image',
  txt: 'text', rst: 'text', csv: 'text', tsv: 'text', json: 'text', toml: 'text', yaml: 'text', yml: 'text', xml: 'text',
  svg: 'text', html: 'text', htm: 'text', py: 'text', js: 'text', ts: 'text', css: 'text', c: 'text', h: 'text', cpp: 'text',
  f90: 'text', r: 'text', m: 'text', sh: 'text', log: 'text', ini: 'text', cfg: 'text', tex: 'text', sql: 'text'
};

/** What the first bytes say that an image is; its name says nothing that is relied on. */
function imageType(bytes: Uint8Array): string {
  const head = String.fromCharCode(...bytes.subarray(0, 12));
  const signatures: [RegExp, string][] = [
    [/^\x89PNG\r\n\x1a\n/, 'image/png'],
    [/^\xff\xd8\xff/, 'image/jpeg'],
    [/^GIF8[79]a/, 'image/gif'],
    [/^RIFF[\s\S]{4}WEBP/, 'image/webp'],
    [/^BM/, 'image/bmp'],
    [/^[\s\S]{4}ftypavi[fs]/, 'image/avif']
  ];
  return signatures.find(([pattern]) => pattern.test(head))?.[1] ?? '';
}

export function previewKind(entry: Entry): Kind | undefined {
  const name = nameOf(entry.path).toLowerCase();
  const suffix = name.slice(name.lastIndexOf('.') + 1);
  const isText = entry.media_type?.startsWith('text/') || /^(readme|license|licence|changelog|makefile|copying)$/.test(name);
  return KINDS[suffix] ?? (isText ? 'text' : undefined);
}

const STYLE = `
  body { margin: 0; padding: 1rem; font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff;
    max-width: 60rem; overflow-wrap: anywhere; }
  pre, code { font-family: ui-monospace, monospace; font-size: 13px; }
  pre { white-space: pre-wrap; background: #f4f4f4; padding: .6rem; margin: .5rem 0; }
  body > pre:only-child { background: none; padding: 0; }
  img { max-width: 100%; min-width: 4rem; image-rendering: pixelated; }
  table { border-collapse: collapse; } td, th { border: 1px solid #bbb; padding: .2rem .5rem; }
  blockquote { border-left: 3px solid #bbb; margin: .5rem 0; padding-left: .8rem; white-space: pre-wrap; }
  .cell { border-left: 3px solid #ddd; padding-left: .7rem; margin: .8rem 0; } .code { border-color: #4a7ab5; }
  .output { color: #555; }
  .dark { color: #ddd; background: #1c1c1c; } .dark pre { background: #2a2a2a; } .dark a { color: #8ab4f8; }`;

/** Shows a file in `el`. The frame's document is made here, node by node, before it gets there. */
export async function showPreview(
  el: HTMLElement,
  service: Service,
  entry: Entry,
  options: { signal: AbortSignal; isDark: boolean }
): Promise<() => void> {
  const kind = previewKind(entry)!;
  const address = addressOf(entry.root ?? '', entry.path);
  const limit = kind === 'image' ? MAX_IMAGE_NBYTES : MAX_TEXT_NBYTES;
  const total = entry.geometry?.shape[0] ?? 0;
  if (kind === 'image' && total > limit) {
    throw new Error(`This image has ${total.toLocaleString('en')} bytes, too many to show: download it`);
  }
  const headers = total > limit ? { Range: `bytes=0-${limit - 1}` } : undefined;
  const bytes = await service.file(address, { signal: options.signal, headers });
  const doc = document.implementation.createHTMLDocument('');
  const style = doc.createElement('style');
  style.textContent = STYLE;
  const policy = doc.createElement('meta');
  policy.httpEquiv = 'Content-Security-Policy';
  policy.content = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";
  doc.head.append(policy, style);
  doc.body.className = options.isDark ? 'dark' : '';
  if (kind === 'image') {
    doc.body.append(await imageNode(bytes, entry, doc));
  } else {
    const source = new TextDecoder().decode(bytes);
    doc.body.append(kind === 'text' ? pre(source, doc) : kind === 'markdown' ? markdownNodes(source, doc) : notebook(source, doc));
    if (headers) {
      doc.body.append(pre(`(the first ${limit.toLocaleString('en')} of ${total.toLocaleString('en')} bytes)`, doc));
    }
  }
  const frame = document.createElement('iframe');
  frame.className = 'c2v-preview';
  // Nothing allowed but links into new windows: no scripts, no origin, no forms.
  frame.setAttribute('sandbox', 'allow-popups');
  frame.title = `Preview of ${shown(nameOf(entry.path))}`;
  frame.srcdoc = `<!doctype html>${doc.documentElement.outerHTML}`;
  el.replaceChildren(frame);
  return () => frame.remove();
}

/** Where a file is downloaded from. */
export const downloadPath = (entry: Entry): string =>
  query('api/v1/file', { path: addressOf(entry.root ?? '', entry.path) });

function pre(text: string, doc: Document): HTMLElement {
  const made = doc.createElement('pre');
  made.textContent = text;
  return made;
}

async function imageNode(bytes: Uint8Array<ArrayBuffer>, entry: Entry, doc: Document): Promise<Node> {
  const type = imageType(bytes);
  if (!type) {
    return pre('This file is not an image that can be shown here, whatever its name says.', doc);
  }
  const blob = new Blob([bytes], { type });
  const image = doc.createElement('img');
  image.alt = nameOf(entry.path);
  // A frame without an origin cannot load our blob URLs: the bytes go along.
  image.src = await new Promise<string>((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result));
    reader.onerror = () => reject(new Error('the image could not be read'));
    reader.readAsDataURL(blob);
  });
  return image;
}

interface Cell {
  cell_type?: unknown;
  source?: unknown;
  outputs?: unknown;
}

const textOf = (lines: unknown): string => (Array.isArray(lines) ? lines.map(String).join('') : String(lines ?? ''));

/** A notebook's cells; of outputs the text and PNG pictures, never HTML or JavaScript. */
function notebook(source: string, doc: Document): Node {
  let cells: Cell[];
  try {
    const form = JSON.parse(source) as { cells?: unknown };
    if (!Array.isArray(form.cells)) {
      throw new Error('no cells');
    }
    cells = form.cells as Cell[];
  } catch {
    return pre(source, doc);
  }
  const out = doc.createDocumentFragment();
  for (const cell of cells.slice(0, MAX_CELLS)) {
    const box = doc.createElement('div');
    box.className = cell.cell_type === 'code' ? 'cell code' : 'cell';
    const text = textOf(cell.source);
    box.append(cell.cell_type === 'markdown' ? markdownNodes(text, doc) : pre(text, doc));
    for (const output of Array.isArray(cell.outputs) ? (cell.outputs as Record<string, unknown>[]) : []) {
      const data = (output?.data ?? {}) as Record<string, unknown>;
      const picture = textOf(data['image/png']).replace(/\s/g, '');
      if (picture && /^[A-Za-z0-9+/=]+$/.test(picture)) {
        const image = doc.createElement('img');
        image.alt = 'output';
        image.src = `data:image/png;base64,${picture}`;
        box.append(image);
      } else {
        const shown = pre(textOf(output?.text ?? data['text/plain'] ?? output?.evalue), doc);
        shown.className = 'output';
        box.append(shown);
      }
    }
    out.append(box);
  }
  return out;
}
