/** How numbers, shapes, types and attributes read; pure. What comes from a publisher stays text. */

export type DtypeForm = string | unknown[] | { [key: string]: unknown };

/** `1536` -> `1.5 kB`; powers of 1000, three digits at most. */
export function formatBytes(nbytes: number): string {
  if (!Number.isFinite(nbytes) || nbytes < 0) {
    return '?';
  }
  let value = nbytes;
  let unit = 0;
  const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB', 'EB'];
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  const digits = unit === 0 || value >= 99.5 ? 0 : value >= 9.95 ? 1 : 2;
  return `${Number(value.toFixed(digits))} ${units[unit]}`;
}

/** `12345` -> `12 345`. */
export function formatCount(count: number): string {
  return String(Math.round(count)).replace(/\B(?=(\d{3})+$)/g, '\u202f');
}

/** `0.4231` -> `42 %`; never 100 % (or 0 %) of what is not whole (or nothing). */
export function formatFraction(fraction: number): string {
  const percent = Math.min(100, Math.max(0, fraction * 100));
  if (percent > 0 && percent < 1) {
    return '<1\u202f%';
  }
  return `${percent < 100 ? Math.min(99, Math.round(percent)) : 100}\u202f%`;
}

export function formatShape(shape: readonly number[]): string {
  return shape.length === 0 ? 'scalar' : shape.join(' × ');
}

const KINDS: { [kind: string]: string } = { b: 'bool', i: 'int', u: 'uint', f: 'float', c: 'complex' };

/** A dtype as NumPy names it: `<f4` -> `float32`, `>f4` -> `float32 (big-endian)`. */
export function formatDtype(form: DtypeForm): string {
  if (typeof form !== 'string') {
    return formatCompound(form);
  }
  if (form === 'vlen-utf8') {
    return 'str';
  }
  const match = /^([<>|=]?)([?a-zA-Z])(\d*)(\[.*\])?$/.exec(form);
  if (match === null) {
    return form;
  }
  const [, order, kind, length, unit] = match;
  const nbytes = Number(length || 0);
  const big = order === '>' && nbytes > 1 ? ' (big-endian)' : '';
  if (kind === 'b' || kind === '?') {
    return 'bool';
  }
  if (kind in KINDS) {
    return `${KINDS[kind]}${nbytes * 8}${big}`;
  }
  switch (kind) {
    case 'S':
      return `bytes[${nbytes}]`;
    case 'U':
      return `str[${nbytes}]`;
    case 'V':
      return `opaque[${nbytes}]`;
    case 'M':
      return `datetime64${unit ?? ''}`;
    case 'm':
      return `timedelta64${unit ?? ''}`;
    default:
      return form;
  }
}

function formatCompound(form: unknown[] | { [key: string]: unknown }): string {
  if (!Array.isArray(form)) {
    if ('base' in form) {
      return `${formatDtype(form.base as DtypeForm)}[${(form.shape as number[]).join(', ')}]`;
    }
    const names = Array.isArray(form.names) ? form.names : [];
    const formats = Array.isArray(form.formats) ? form.formats : [];
    return fields(names.map((name, i) => [String(name), formats[i] as DtypeForm]));
  }
  return fields(form.map(field => [fieldName((field as unknown[])[0]), (field as unknown[])[1] as DtypeForm]));
}

function fieldName(name: unknown): string {
  return Array.isArray(name) ? String(name[name.length - 1]) : String(name);
}

function fields(pairs: [string, DtypeForm][]): string {
  const shown = pairs.slice(0, 4).map(([name, form]) => `${name}: ${formatDtype(form)}`);
  return `{${shown.join(', ')}${pairs.length > 4 ? `, … ${pairs.length} fields` : ''}}`;
}

/** As short as can be, for a row of the tree: `float32` -> `f4`. */
export function shortDtype(form: DtypeForm): string {
  if (typeof form !== 'string') {
    return 'struct';
  }
  if (form === 'vlen-utf8') {
    return 'str';
  }
  const text = form.replace(/^[<>|=]/, '');
  return text === 'b1' || text === '?' ? 'bool' : text;
}

/** Bytes that an item takes; 0 where that is not known. */
export function itemNbytes(form: DtypeForm): number {
  if (typeof form === 'string') {
    const match = /^[<>|=]?([?a-zA-Z])(\d*)/.exec(form);
    if (match === null) {
      return 0;
    }
    return match[1] === '?' ? 1 : Number(match[2] || 0) * (match[1] === 'U' ? 4 : 1);
  }
  if (!Array.isArray(form)) {
    if (typeof form.itemsize === 'number') {
      return form.itemsize;
    }
    return 'base' in form ? itemNbytes(form.base as DtypeForm) * product(form.shape as number[]) : 0;
  }
  let sum = 0;
  for (const field of form as unknown[][]) {
    sum += itemNbytes(field[1] as DtypeForm) * product((field[2] as number[] | undefined) ?? []);
  }
  return sum;
}

export function product(numbers: readonly number[]): number {
  return numbers.reduce((a, b) => a * b, 1);
}

/** A date and time in this browser's own way. */
export function formatTime(ms: number): string {
  return new Date(ms).toLocaleString([], { dateStyle: 'medium', timeStyle: 'short' });
}

const MAX_SHOWN = 16;
const MAX_TEXT = 2000;

/** An attribute (see `core/attributes.py` for its forms) as one text. */
export function formatAttribute(value: unknown): string {
  const text = attributeText(value, 0);
  return text.length > MAX_TEXT ? `${text.slice(0, MAX_TEXT)}…` : text;
}

function attributeText(value: unknown, depth: number): string {
  if (value === null || typeof value !== 'object') {
    return value === null ? 'None' : typeof value === 'boolean' ? (value ? 'True' : 'False') : String(value);
  }
  if (depth > 4) {
    return '…';
  }
  if (Array.isArray(value)) {
    return `[${listText(value, depth)}]`;
  }
  const form = value as { [key: string]: unknown };
  switch (form.t) {
    case 'float':
      return String(form.v);
    case 'bytes':
      return bytesText(decodeBase64(String(form.v)));
    case 'tuple':
      return `(${listText(form.v as unknown[], depth)})`;
    case 'dict':
      return `{${listText((form.v as [unknown, unknown][]).map(pair => pair), depth, ([k, v]: [unknown, unknown]) =>
        `${attributeText(k, depth + 1)}: ${attributeText(v, depth + 1)}`
      )}}`;
    case 'strings':
      return `[${listText(form.v as unknown[], depth)}]`;
    case 'empty':
      return '(empty)';
    case 'scalar':
      return numbers(form.d as DtypeForm, String(form.v))[0] ?? formatDtype(form.d as DtypeForm);
    case 'nd': {
      const items = numbers(form.d as DtypeForm, String(form.v));
      const count = product(form.s as number[]);
      const more = count > MAX_SHOWN ? `, … ${formatCount(count)} values` : '';
      return `[${items.slice(0, MAX_SHOWN).join(', ')}${more}]`;
    }
    default:
      return `{${listText(Object.entries(form), depth, ([k, v]) => `${k}: ${attributeText(v, depth + 1)}`)}}`;
  }
}

function listText<T>(items: T[], depth: number, text: (item: T) => string = item => attributeText(item, depth + 1)): string {
  const more = items.length > MAX_SHOWN ? `, … ${formatCount(items.length)} values` : '';
  return items.slice(0, MAX_SHOWN).map(text).join(', ') + more;
}

function decodeBase64(text: string): Uint8Array {
  try {
    return Uint8Array.from(atob(text), c => c.charCodeAt(0));
  } catch {
    return new Uint8Array();
  }
}

function bytesText(bytes: Uint8Array): string {
  const text = new TextDecoder('utf-8').decode(bytes.slice(0, MAX_TEXT));
  return text.replace(/\0+$/, '');
}

/** The first values of a small array in base64. */
function numbers(dtype: DtypeForm, base64: string): string[] {
  const match = typeof dtype === 'string' ? /^([<>|=]?)([?a-zA-Z])(\d*)/.exec(dtype) : null;
  if (match === null) {
    return [formatDtype(dtype)];
  }
  const little = match[1] !== '>';
  const kind = match[2];
  const nbytes = match[2] === 'U' ? 4 * Number(match[3]) : Number(match[3] || 1);
  const bytes = decodeBase64(base64);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const found: string[] = [];
  for (let at = 0; at + nbytes <= bytes.length && nbytes > 0 && found.length <= MAX_SHOWN; at += nbytes) {
    found.push(one(view, bytes, kind, nbytes, at, little));
  }
  return found;
}

function one(view: DataView, bytes: Uint8Array, kind: string, nbytes: number, at: number, little: boolean): string {
  switch (`${kind}${nbytes}`) {
    case 'b1':
    case '?1':
      return view.getUint8(at) ? 'True' : 'False';
    case 'i1':
      return String(view.getInt8(at));
    case 'u1':
      return String(view.getUint8(at));
    case 'i2':
      return String(view.getInt16(at, little));
    case 'u2':
      return String(view.getUint16(at, little));
    case 'i4':
      return String(view.getInt32(at, little));
    case 'u4':
      return String(view.getUint32(at, little));
    case 'i8':
      return String(view.getBigInt64(at, little));
    case 'u8':
      return String(view.getBigUint64(at, little));
    case 'f4':
      return String(Number(view.getFloat32(at, little).toPrecision(8)));
    case 'f8':
      return String(view.getFloat64(at, little));
    case 'c8':
      return `${view.getFloat32(at, little)}+${view.getFloat32(at + 4, little)}j`;
    case 'c16':
      return `${view.getFloat64(at, little)}+${view.getFloat64(at + 8, little)}j`;
    default:
      if (kind === 'U') {
        let text = '';
        for (let k = 0; k < nbytes; k += 4) {
          const code = view.getUint32(at + k, little);
          text += code && code < 0x110000 ? String.fromCodePoint(code) : '';
        }
        return text;
      }
      return bytesText(bytes.slice(at, at + nbytes));
  }
}
