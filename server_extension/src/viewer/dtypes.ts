// What a dtype of the wire means, and values from raw bytes. Bytes are C order and little endian; nothing here asks for any.

/** As in entries: a NumPy type string, a list of fields, or an object. */
export type DTypeForm = string | FieldForm[] | StructForm | SubarrayForm;
type FieldForm = [name: string, format: DTypeForm, shape?: number[]];
interface StructForm {
  names: string[];
  formats: DTypeForm[];
  offsets: number[];
  itemsize: number;
}
interface SubarrayForm {
  base: DTypeForm;
  shape: number[];
}

export interface Field {
  name: string;
  offset: number;
  type: ItemType;
}

/** A dtype, parsed. `kind` is NumPy's letter; `vlen` are strings of variable length, `array` is a sub-array. */
export interface ItemType {
  kind: 'b' | 'i' | 'u' | 'f' | 'c' | 'S' | 'U' | 'V' | 'M' | 'm' | 'struct' | 'array' | 'vlen';
  itemsize: number;
  unit?: string;
  fields?: Field[];
  base?: ItemType;
  dims?: number[];
}

export type NumberArray =
  | Float32Array
  | Float64Array
  | Int8Array
  | Int16Array
  | Int32Array
  | Uint8Array
  | Uint16Array
  | Uint32Array;
export type BigArray = BigInt64Array | BigUint64Array;
export type Complex = [real: number, imag: number];

const product = (numbers: number[]): number => numbers.reduce((a, b) => a * b, 1);

/** Parses a dtype; throws for one that is not known. */
export function parseDType(form: DTypeForm): ItemType {
  if (form === 'vlen-utf8') {
    return { kind: 'vlen', itemsize: 16 };
  }
  if (typeof form === 'string') {
    const match = /^[<>|=]?([?biufcmMSUV])(\d*)(?:\[(\d*)([a-zA-Zμ]+)\])?$/.exec(form);
    if (!match) {
      throw new Error(`dtype ${JSON.stringify(form)} is not known here`);
    }
    const kind = match[1] === '?' ? 'b' : (match[1] as ItemType['kind']);
    const count = match[1] === '?' ? 1 : Number(match[2]);
    return { kind, itemsize: kind === 'U' ? 4 * count : count, unit: match[4] && `${match[3]}${match[4]}` };
  }
  if (Array.isArray(form)) {
    let offset = 0;
    const fields = form.map(([name, format, shape]) => {
      const type = withShape(parseDType(format), shape);
      const field = { name, offset, type };
      offset += type.itemsize;
      return field;
    });
    return { kind: 'struct', itemsize: offset, fields };
  }
  if ('base' in form) {
    return withShape(parseDType(form.base), form.shape);
  }
  const fields = form.names.map((name, i) => ({ name, offset: form.offsets[i], type: parseDType(form.formats[i]) }));
  return { kind: 'struct', itemsize: form.itemsize, fields };
}

function withShape(base: ItemType, shape: number[] | undefined): ItemType {
  return shape?.length ? { kind: 'array', itemsize: base.itemsize * product(shape), base, dims: shape } : base;
}

/** For people: `float32`, `<U10` stays as it is. */
export function dtypeName(form: DTypeForm): string {
  if (typeof form !== 'string') {
    return JSON.stringify(form);
  }
  const type = /^[<|=]([iufc])(\d+)$/.exec(form);
  const names: Record<string, string> = { i: 'int', u: 'uint', f: 'float', c: 'complex' };
  return type ? `${names[type[1]]}${8 * Number(type[2])}` : form === '|b1' ? 'bool' : form;
}

/** A float16 as a number. */
function halfOf(bits: number): number {
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  const sign = bits & 0x8000 ? -1 : 1;
  if (exponent === 0) {
    return sign * fraction * 2 ** -24;
  }
  return exponent === 31 ? (fraction ? NaN : sign * Infinity) : sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** An x86 long double (80 bits, padded) as the nearest number. */
function extendedOf(view: DataView, at: number): number {
  const word = view.getUint16(at + 8, true);
  const exponent = word & 0x7fff;
  const high = view.getUint32(at + 4, true);
  const mantissa = high * 2 ** 32 + view.getUint32(at, true);
  const sign = word & 0x8000 ? -1 : 1;
  if (exponent === 0x7fff) {
    return (high & 0x7fffffff) || view.getUint32(at, true) ? NaN : sign * Infinity;
  }
  // In two steps: the power alone may not be a number yet.
  return exponent === 0 ? 0 * sign : sign * (mantissa / 2 ** 63) * 2 ** Math.max(exponent - 16383, -1070);
}

function floatOf(view: DataView, at: number, itemsize: number): number {
  switch (itemsize) {
    case 2:
      return halfOf(view.getUint16(at, true));
    case 4:
      return view.getFloat32(at, true);
    case 8:
      return view.getFloat64(at, true);
    default:
      return extendedOf(view, at);
  }
}

function integerOf(view: DataView, at: number, type: ItemType): number | bigint {
  const isSigned = type.kind !== 'u';
  switch (type.itemsize) {
    case 1:
      return isSigned ? view.getInt8(at) : view.getUint8(at);
    case 2:
      return isSigned ? view.getInt16(at, true) : view.getUint16(at, true);
    case 4:
      return isSigned ? view.getInt32(at, true) : view.getUint32(at, true);
    default:
      return isSigned ? view.getBigInt64(at, true) : view.getBigUint64(at, true);
  }
}

const NAT = -(2n ** 63n);
const MS_OF: Record<string, number> = { W: 604_800_000, D: 86_400_000, h: 3_600_000, m: 60_000, s: 1000, ms: 1 };
const PER_MS: Record<string, bigint> = { us: 1000n, ns: 1_000_000n, ps: 1_000_000_000n, fs: 10n ** 12n, as: 10n ** 15n };

/** A datetime64 as ISO text, a timedelta64 as a number with its unit. */
export function timeText(count: bigint, kind: 'M' | 'm', unit = ''): string {
  if (count === NAT) {
    return 'NaT';
  }
  const [, factor, name] = /^(\d*)(.*)$/.exec(unit)!;
  const units = count * BigInt(factor || '1');
  if (kind === 'm') {
    return `${units} ${name}`.trim();
  }
  if (name === 'Y') {
    return String(1970n + units);
  }
  if (name === 'M') {
    const year = 1970n + (units - (((units % 12n) + 12n) % 12n)) / 12n;
    return `${year}-${String(((units % 12n) + 12n) % 12n + 1n).padStart(2, '0')}`;
  }
  let ms: bigint;
  let rest = '';
  if (name in MS_OF) {
    ms = units * BigInt(MS_OF[name]);
  } else if (name in PER_MS) {
    const per = PER_MS[name];
    const over = ((units % per) + per) % per;
    ms = (units - over) / per;
    rest = over ? String(over).padStart(String(per).length - 1, '0') : '';
  } else {
    return String(units);
  }
  const date = new Date(Number(ms));
  if (Number.isNaN(date.getTime())) {
    return `${units} ${name}`;
  }
  const text = date.toISOString().slice(0, -1) + rest;
  return 'WD'.includes(name) ? text.slice(0, text.indexOf('T')) : text;
}

const UTF8 = new TextDecoder();

function textOf(view: DataView, at: number, type: ItemType): string {
  if (type.kind === 'S') {
    let stop = at + type.itemsize;
    while (stop > at && view.getUint8(stop - 1) === 0) {
      stop -= 1;
    }
    return UTF8.decode(new Uint8Array(view.buffer, view.byteOffset + at, stop - at));
  }
  const points: number[] = [];
  for (let i = 0; i < type.itemsize; i += 4) {
    points.push(view.getUint32(at + i, true));
  }
  while (points.length && points[points.length - 1] === 0) {
    points.pop();
  }
  return points.map(point => (point <= 0x10ffff ? String.fromCodePoint(point) : '\ufffd')).join('');
}

/** One item, as H5Web takes it: numbers, BigInt, `[re, im]`, text, an array per struct or sub-array. */
export function itemOf(view: DataView, at: number, type: ItemType): unknown {
  switch (type.kind) {
    case 'b':
      return view.getUint8(at) !== 0;
    case 'i':
    case 'u':
      return integerOf(view, at, type);
    case 'f':
      return floatOf(view, at, type.itemsize);
    case 'c': {
      const half = type.itemsize / 2;
      return [floatOf(view, at, half), floatOf(view, at + half, half)];
    }
    case 'S':
    case 'U':
      return textOf(view, at, type);
    case 'M':
    case 'm':
      return timeText(view.getBigInt64(at, true), type.kind, type.unit);
    case 'struct':
      return type.fields!.map(field => itemOf(view, at + field.offset, field.type));
    case 'array':
      return Array.from({ length: product(type.dims!) }, (_, i) =>
        itemOf(view, at + i * type.base!.itemsize, type.base!)
      );
    default:
      return new Uint8Array(view.buffer, view.byteOffset + at, type.itemsize).slice();
  }
}

/** All items of a buffer: a typed array where there is one (float16 as float32, long doubles as float64), else a list. */
export function itemsOf(bytes: Uint8Array<ArrayBuffer>, type: ItemType): NumberArray | BigArray | unknown[] {
  const whole = bytes.byteOffset % 16 === 0 ? bytes : bytes.slice();
  const { buffer, byteOffset } = whole;
  const length = type.itemsize ? Math.floor(whole.byteLength / type.itemsize) : 0;
  const name = `${type.kind}${type.itemsize}`;
  switch (name) {
    case 'f4':
      return new Float32Array(buffer, byteOffset, length);
    case 'f8':
      return new Float64Array(buffer, byteOffset, length);
    case 'i1':
      return new Int8Array(buffer, byteOffset, length);
    case 'i2':
      return new Int16Array(buffer, byteOffset, length);
    case 'i4':
      return new Int32Array(buffer, byteOffset, length);
    case 'i8':
      return new BigInt64Array(buffer, byteOffset, length);
    case 'b1':
    case 'u1':
      return new Uint8Array(buffer, byteOffset, length);
    case 'u2':
      return new Uint16Array(buffer, byteOffset, length);
    case 'u4':
      return new Uint32Array(buffer, byteOffset, length);
    case 'u8':
      return new BigUint64Array(buffer, byteOffset, length);
  }
  const view = new DataView(buffer, byteOffset, whole.byteLength);
  if (type.kind === 'f') {
    const numbers = type.itemsize === 2 ? new Float32Array(length) : new Float64Array(length);
    for (let i = 0; i < length; i++) {
      numbers[i] = floatOf(view, i * type.itemsize, type.itemsize);
    }
    return numbers;
  }
  return Array.from({ length }, (_, i) => itemOf(view, i * type.itemsize, type));
}
