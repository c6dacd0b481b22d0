// Attributes of entries (their JSON forms) as values with a shape and a type. Values are data: never markup.
import { DTypeForm, ItemType, itemsOf, parseDType } from './dtypes';

export interface AttributeValue {
  /** `null`: there is no value (an HDF5 null dataspace). */
  shape: number[] | null;
  type: ItemType | 'text';
  /** A bare value where the shape is `[]`, else a flat list; numbers that JSON lacks are NaN or Infinity. */
  value: unknown;
}

type Form = unknown;
interface Tagged {
  t: string;
  v?: unknown;
  d?: DTypeForm;
  s?: number[];
}

const INTEGER: ItemType = { kind: 'i', itemsize: 8 };
const FLOAT: ItemType = { kind: 'f', itemsize: 8 };
const BOOLEAN: ItemType = { kind: 'b', itemsize: 1 };
const text = (value: string): AttributeValue => ({ shape: [], type: 'text', value });

function isTagged(form: Form): form is Tagged {
  return typeof form === 'object' && form !== null && 't' in form && typeof form.t === 'string';
}

function bytesOf(base64: unknown): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(atob(String(base64)), c => c.charCodeAt(0));
}

const TEXT_OF_FLOAT: Record<string, number> = { nan: NaN, inf: Infinity, '-inf': -Infinity };

/** The value that a form stands for; a form that is not known is shown as its JSON text. */
export function attributeOf(form: Form): AttributeValue {
  try {
    return decoded(form);
  } catch {
    return text(JSON.stringify(form));
  }
}

function decoded(form: Form): AttributeValue {
  switch (typeof form) {
    case 'string':
      return text(form);
    case 'boolean':
      return { shape: [], type: BOOLEAN, value: form };
    case 'number':
      // Beyond 2^53 JSON.parse has rounded it: then it is shown as the number that it became.
      return { shape: [], type: Number.isSafeInteger(form) ? INTEGER : FLOAT, value: form };
  }
  if (form === null) {
    return { shape: null, type: 'text', value: null };
  }
  if (Array.isArray(form)) {
    return ofList(form);
  }
  if (!isTagged(form)) {
    return text(JSON.stringify(form));
  }
  switch (form.t) {
    case 'float':
      return { shape: [], type: FLOAT, value: TEXT_OF_FLOAT[String(form.v)] ?? NaN };
    case 'bytes':
      return text(new TextDecoder().decode(bytesOf(form.v)));
    case 'tuple':
      return ofList(form.v as Form[]);
    case 'strings':
      return form.s!.length
        ? { shape: form.s!, type: 'text', value: form.v }
        : text(String((form.v as string[])[0] ?? ''));
    case 'scalar':
    case 'nd': {
      const type = parseDType(form.d!);
      const bytes = bytesOf(form.v);
      const values = itemsOf(isBigEndian(form.d!) ? swapped(bytes, type) : bytes, type);
      const shape = form.t === 'scalar' ? [] : form.s!;
      const isText = 'SUMm'.includes(type.kind);
      return { shape, type: isText ? 'text' : type, value: shape.length ? values : values[0] };
    }
    case 'empty':
      return { shape: null, type: 'text', value: null };
    default:
      return text(JSON.stringify(form));
  }
}

function ofList(items: Form[]): AttributeValue {
  const values = items.map(decoded);
  const first = values[0];
  const isFlat = values.every(v => v.shape?.length === 0);
  if (first && isFlat && values.every(v => v.type === 'text')) {
    return { shape: [values.length], type: 'text', value: values.map(v => v.value) };
  }
  if (first && isFlat && values.every(v => typeof v.value === 'number')) {
    const isInteger = values.every(v => v.type === INTEGER);
    return { shape: [values.length], type: isInteger ? INTEGER : FLOAT, value: values.map(v => v.value) };
  }
  return text(JSON.stringify(items));
}

function isBigEndian(form: DTypeForm): boolean {
  return typeof form === 'string' && form.startsWith('>');
}

/** Big endian numbers as little endian ones. */
function swapped(bytes: Uint8Array<ArrayBuffer>, type: ItemType): Uint8Array<ArrayBuffer> {
  const unit = type.kind === 'c' ? type.itemsize / 2 : type.kind === 'U' ? 4 : type.itemsize;
  const out = new Uint8Array(bytes.length);
  for (let at = 0; at + unit <= bytes.length; at += unit) {
    for (let i = 0; i < unit; i++) {
      out[at + i] = bytes[at + unit - 1 - i];
    }
  }
  return out;
}
