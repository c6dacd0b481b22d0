// What H5Web asks for, answered from REST v1. The group that is looked at is H5Web's root: "/" is the scope, an
// address of a root or of a group in one. Entities that no catalog has stand for parts of the scope: an overview
// and pieces of arrays that are too large to be shown whole, and pages of large groups.
import {
  type ArrayShape,
  type Attribute,
  type AttributeValues,
  type BuiltInExporter,
  type ChildEntity,
  type Dataset,
  DataProviderApi,
  type DType,
  DTypeClass,
  type Entity,
  EntityKind,
  type ExportFormat,
  type ExportURL,
  type Group,
  type ProvidedEntity,
  type ScalarShape,
  type Shape,
  ShapeClass,
  type ValuesStoreParams
} from '@h5web/app';
import { formatBytes, formatDtype, formatShape } from '../browser/format';
import { sentence } from '../browser/failures';
import { plain, plainText } from '../text';
import { attributeOf, AttributeValue } from './attributes';
import type { Facts } from './contents';
import { Complex, ItemType, parseDType } from './dtypes';
import { isLarge, LINE_PIXELS, PLANE_PIXELS, refusal, ROW_LENGTH } from './limits';
import { ServiceError } from '../transport';
import { addressOf, Entry, nameOf, Overview, Service, Values } from './service';

const PAGE = 500;
const MAX_SEARCHED = 50_000;
const MAX_AT_ONCE = 4;
const MAX_REDUCED_NBYTES = 2 ** 29;
const TOO_LARGE = 413;
const MASKS = ['_FillValue', 'missing_value', 'valid_min', 'valid_max'];

type Plotted = Dataset<ScalarShape | ArrayShape>;
type Reader = (selection: string | undefined, signal?: AbortSignal) => Promise<unknown>;

/** What an H5Web store of values offers to end what nobody waits for. */
export interface ValuesStore {
  abort(parameters: ValuesStoreParams, reason?: string, evict?: boolean): void;
}

export class Provider extends DataProviderApi {
  /** Where the first entry is here. */
  readonly first: string = '/';
  /** Set once H5Web has made its store. */
  store: ValuesStore | null = null;

  private readonly entries = new Map<string, Entry>();
  private readonly attributes = new Map<string, AttributeValues>();
  private readonly made = new Map<string, ProvidedEntity>();
  private readonly readers = new Map<string, Reader>();
  private readonly pages = new Map<string, string>();
  /** Addresses of what has another name here, as far as it was found by a search alone. */
  private readonly renamed = new Map<string, string>();
  private readonly asked = new Map<string, ValuesStoreParams>();
  private isListingWanted = false;
  private wantListing: () => void = () => undefined;
  private readonly listingWanted = new Promise<void>(resolve => (this.wantListing = resolve));
  private running = 0;
  private readonly queue: (() => void)[] = [];

  constructor(
    private readonly service: Service,
    /** Address of the group that is "/" here. */
    private readonly scope: string,
    first?: Entry,
    /** Shows a file that is not an array; false where H5Web is to show it. */
    private readonly showFile: (entry: Entry) => boolean = () => false
  ) {
    super(scope);
    if (first) {
      this.first = this.localPath(first.path);
      this.entries.set(this.first, first);
    }
  }

  /** Show something that was chosen from a group's list; false where H5Web is to. */
  readonly show = (path: string): boolean => {
    const entry = this.entries.get(path);
    return entry?.kind === 'file' && this.showFile(entry);
  };

  /** What is known of an entity, for a list of what is in a group. */
  readonly factsOf = (path: string): Facts | undefined => {
    const entry = this.entries.get(path);
    if (!entry) {
      return undefined;
    }
    const { geometry, cbytes, kind, reason } = entry;
    const isArray = kind === 'array' && geometry !== undefined;
    return {
      kind,
      shape: isArray ? formatShape(geometry.shape) : '',
      type: isArray ? plain(formatDtype(geometry.dtype as Parameters<typeof formatDtype>[0])) : '',
      size: cbytes === undefined ? '' : formatBytes(cbytes),
      reason
    };
  };

  /** From now on the tree may list the scope; before, nobody sees it. */
  listScope(): void {
    this.isListingWanted = true;
    this.wantListing();
  }

  override async getEntity(path: string): Promise<ProvidedEntity> {
    const made = this.made.get(path);
    if (made) {
      return made;
    }
    if (path === '/' && !this.isListingWanted) {
      await this.listingWanted;
    }
    const after = this.pages.get(path);
    if (after !== undefined) {
      const parent = path.slice(0, path.lastIndexOf('/'));
      return this.groupOf(path, await this.listing(parent, after));
    }
    const parent = path.slice(0, path.lastIndexOf('/'));
    if (!this.made.has(path) && parent && !this.entries.has(path)) {
      const above = this.entries.get(parent);
      if (above?.geometry && isLarge(above)) {
        this.groupOfLarge(parent, above);
        const part = this.made.get(path);
        if (part) {
          return part;
        }
      }
    }
    const entry = await this.entryAt(path);
    if (entry.kind === 'group') {
      return this.groupOf(path, await this.listing(path === '/' ? '' : path));
    }
    return this.entityOf(path, entry) as ProvidedEntity;
  }

  override async getAttrValues(entity: Entity): Promise<AttributeValues> {
    const entry = this.entries.get(entity.path);
    if (entry?.attrs_inline === false) {
      const whole = await this.service.entry(this.addressAt(entity.path));
      this.entries.set(entity.path, whole);
      this.describe(entity.path, whole);
    }
    return this.attributes.get(entity.path) ?? {};
  }

  override async getValue(
    parameters: ValuesStoreParams,
    signal?: AbortSignal,
    onProgress?: (part: number) => void
  ): Promise<unknown> {
    const { dataset, selection } = parameters;
    this.endOlder(parameters);
    try {
      const reader = this.readers.get(dataset.path);
      if (reader) {
        return await reader(selection, signal);
      }
      const entry = await this.entryAt(dataset.path);
      const geometry = entry.geometry;
      if (!geometry) {
        throw new Error(entry.reason ?? 'there are no values');
      }
      const address = this.addressAt(dataset.path);
      const why = refusal(geometry.shape, parseDType(geometry.dtype).itemsize, selection, address);
      if (why) {
        throw new Error(why);
      }
      const options = { signal, onProgress, version: entry.version };
      const values = await this.service.values(address, geometry.shape.length ? selection : undefined, options);
      return forH5Web(values.data, values.dtype, dataset.shape.class === ShapeClass.Scalar);
    } catch (error) {
      // H5Web offers "Retry?" for its own AbortError only.
      throw signal?.aborted ? signal.reason : new Error(sentence(error));
    } finally {
      if (this.asked.get(dataset.path) === parameters) {
        this.asked.delete(dataset.path);
      }
    }
  }

  override getExportURL(
    format: ExportFormat,
    dataset: Dataset,
    selection?: string,
    builtIn?: BuiltInExporter
  ): ExportURL | undefined {
    if (builtIn) {
      return async () => new Blob([builtIn()]);
    }
    const entry = this.entries.get(dataset.path);
    if (format !== 'npy' || !entry?.geometry || this.readers.has(dataset.path)) {
      return undefined;
    }
    return async () => this.npy(dataset as Plotted, selection);
  }

  override async getSearchablePaths(): Promise<string[]> {
    const paths: string[] = [];
    let after: string | undefined;
    do {
      const page = await this.service.page(this.scope, { depth: 0, limit: 10_000, after });
      for (const item of page.items) {
        const path = this.localPath(item.path);
        paths.push(path);
        if (plain(item.path) !== item.path) {
          this.renamed.set(path, addressOf(this.root, item.path));
        }
      }
      after = page.next ?? undefined;
    } while (after && paths.length < MAX_SEARCHED);
    return paths;
  }

  /** Only the newest slice of a dataset is waited for: an older one that is still coming is ended. */
  private endOlder(parameters: ValuesStoreParams): void {
    const path = parameters.dataset.path;
    const older = this.asked.get(path);
    this.asked.set(path, parameters);
    if (older && older.selection !== parameters.selection) {
      // Not now: H5Web is in the middle of asking.
      queueMicrotask(() => this.store?.abort(older, 'superseded', true));
    }
  }

  private async npy(dataset: Plotted, selection?: string): Promise<Blob> {
    const address = this.addressAt(dataset.path);
    const why = refusal(dataset.shape.dims, parseDType(this.entries.get(dataset.path)!.geometry!.dtype).itemsize, selection, address);
    if (why) {
      throw new Error(why);
    }
    const path = `api/v1/values?path=${encodeURIComponent(address)}${selection ? `&sel=${selection}` : ''}`;
    const answer = await this.service.transport.get(path);
    const body = await answer.bytes();
    const descr = answer.headers.get('X-Caterva2-Dtype') ?? '';
    if (answer.status !== 200 || !/^[<|][biufcSU]\d+$/.test(descr)) {
      throw new Error('these values have no .npy form here');
    }
    const shape = JSON.parse(answer.headers.get('X-Caterva2-Shape') ?? '[]') as number[];
    const tuple = shape.length === 1 ? `${shape[0]},` : shape.join(', ');
    const text = `{'descr': '${descr}', 'fortran_order': False, 'shape': (${tuple}), }`;
    const padded = text.padEnd(Math.ceil((text.length + 11) / 64) * 64 - 11) + '\n';
    const head = new Uint8Array([0x93, 78, 85, 77, 80, 89, 1, 0, padded.length & 255, padded.length >> 8]);
    return new Blob([head, padded, body]);
  }

  // -- entries ---------------------------------------------------------------------------------------------------

  private localPath(path: string): string {
    const address = addressOf(this.root, path);
    return address === this.scope ? '/' : `/${localName(address.slice(this.scope.length + 1))}`;
  }

  private get root(): string {
    return this.scope.split('/', 1)[0];
  }

  /** Names are others here, see `localName`; entries know their whole path. */
  private addressAt(path: string): string {
    const entry = this.entries.get(path);
    if (entry) {
      return addressOf(this.root, entry.path);
    }
    return path === '/' || path === '' ? this.scope : (this.renamed.get(path) ?? `${this.scope}${path}`);
  }

  private async entryAt(path: string): Promise<Entry> {
    const known = this.entries.get(path);
    if (known) {
      return known;
    }
    const entry = await this.oneOfFew(() => this.service.entry(this.addressAt(path)));
    this.entries.set(path, entry);
    return entry;
  }

  /** H5Web asks for each child group of an opened one: not all at once. */
  private async oneOfFew<T>(work: () => Promise<T>): Promise<T> {
    if (this.running >= MAX_AT_ONCE) {
      await new Promise<void>(resolve => this.queue.push(resolve));
    }
    this.running += 1;
    try {
      return await work();
    } finally {
      this.running -= 1;
      this.queue.shift()?.();
    }
  }

  /** Children of a group as entities; of more than a page of them, the last one stands for the rest. */
  private async listing(parent: string, after?: string): Promise<ChildEntity[]> {
    const page = await this.oneOfFew(() =>
      this.service.page(this.addressAt(parent), { depth: 1, limit: PAGE, after })
    );
    const taken = new Set(page.items.map(item => plain(nameOf(item.path))));
    const children = page.items.map(item => {
      const short = localName(nameOf(item.path));
      const path = `${parent}/${taken.has(short) ? plain(nameOf(item.path)) : short}`;
      this.entries.set(path, item);
      const child = this.entityOf(path, item);
      // A group with an NXdata in it shows that as its own plot: an overview of a member is none.
      return this.made.has(path) ? { ...child, attributes: child.attributes.filter(({ name }) => name !== 'NX_class') } : child;
    });
    if (page.next) {
      let name = `⋯ after ${localName(nameOf(page.next))}`;
      while (taken.has(name)) {
        name += ' ';
      }
      const path = `${parent}/${name}`;
      this.pages.set(path, page.next);
      children.push({ name, path, kind: EntityKind.Group, attributes: [] });
    }
    return children;
  }

  private groupOf(path: string, children: ChildEntity[]): ProvidedEntity {
    const entry = this.entries.get(path);
    const attributes = entry ? this.describe(path, entry) : [];
    const name = path === '/' ? nameOf(this.scope) : nameOf(path);
    return { name, path, kind: EntityKind.Group, attributes, children };
  }

  private entityOf(path: string, entry: Entry): ChildEntity | ProvidedEntity {
    const base = { name: nameOf(path), path, attributes: this.describe(path, entry) };
    if (entry.kind === 'group') {
      return { ...base, kind: EntityKind.Group };
    }
    const geometry = entry.geometry;
    if (!geometry) {
      return { ...base, kind: EntityKind.Unresolved };
    }
    if (isLarge(entry)) {
      return this.groupOfLarge(path, entry);
    }
    const filters = filtersOf(entry);
    const dataset: Dataset = {
      ...base,
      kind: EntityKind.Dataset,
      shape: shapeOf(entry.storage?.empty ? null : named(geometry.shape, entry.dims)),
      type: typeOf(geometry.dtype, entry),
      rawType: geometry.dtype,
      ...(geometry.chunks.length > 0 && { chunks: geometry.chunks }),
      ...(filters.length > 0 && { filters })
    };
    return dataset;
  }

  private describe(path: string, entry: Entry): Attribute[] {
    const values = Object.create(null) as AttributeValues; // an attribute may be called __proto__
    const attributes: Attribute[] = [];
    for (const [told, form] of Object.entries(entry.attrs ?? {})) {
      const name = plain(told);
      let attribute = attributeOf(form);
      if (MASKS.includes(name) && attribute.shape?.length === 1 && attribute.shape[0] === 1) {
        attribute = { ...attribute, shape: [], value: (attribute.value as ArrayLike<unknown>)[0] };
      }
      // H5Web shows attributes as JSON, which has no NaN: but for those that it reckons with, the word is given.
      const value = simple(attribute);
      const hasWords = !MASKS.includes(name) && [value].flat().some(v => typeof v === 'number' && !Number.isFinite(v));
      attributes.push({ name, shape: shapeOf(attribute.shape), type: hasWords ? TEXT : typeOfAttribute(attribute) });
      values[name] = hasWords ? worded(value) : value;
    }
    this.attributes.set(path, values);
    return attributes;
  }

  // -- arrays over the limits ------------------------------------------------------------------------------------

  /** A group in the place of a large array: an NXdata of its overview, and its values piece by piece. */
  private groupOfLarge(path: string, entry: Entry): ProvidedEntity {
    const known = this.made.get(path);
    if (known) {
      return known;
    }
    const { shape } = entry.geometry!;
    const isLine = shape.length === 1;
    const pixels = isLine ? LINE_PIXELS : PLANE_PIXELS;
    const kept = shape.slice(0, isLine ? 0 : -2);
    const drawn = shape.slice(kept.length).map(n => Math.min(n, pixels));
    const axes = isLine ? ['position'] : ['row', 'column'];
    const whole = shape.map((_, axis) => (axis < kept.length ? '0' : ':')).join(',');
    const children: ChildEntity[] = [];
    const add = (name: string, dims: number[], attributes: AttributeValues, read: Reader): void => {
      const child = `${path}/${name}`;
      const dataset = { ...this.madeDataset(child, name, dims, attributes) };
      this.readers.set(child, read);
      this.made.set(child, dataset);
      children.push(dataset);
    };
    const label = nameOf(path);
    add('overview', [...kept, ...drawn], { long_name: label }, async (selection, signal) =>
      stretched(await this.overview(path, entry, selection ?? whole, signal), drawn)
    );
    axes.forEach((axis, i) => {
      const step = shape[kept.length + i] / drawn[i];
      add(axis, [drawn[i]], { long_name: axis }, async () => Float64Array.from({ length: drawn[i] }, (_, at) => at * step));
    });
    const read = (selection: string, signal?: AbortSignal): Promise<Values> =>
      this.service.values(this.addressAt(path), selection, { signal, version: entry.version });
    if (isLine) {
      const n = shape[0];
      add('rows', [Math.ceil(n / ROW_LENGTH), ROW_LENGTH], { long_name: label }, async (selection, signal) => {
        const row = Number(/^\d+/.exec(selection ?? '0')?.[0] ?? NaN);
        if (Number.isNaN(row) || selection?.split(',')[1] !== ':') {
          throw new Error(`rows of ${ROW_LENGTH} values are looked at along their length: choose D1 as x axis`);
        }
        const stop = Math.min((row + 1) * ROW_LENGTH, n);
        return padded(await read(`${row * ROW_LENGTH}:${stop}`, signal), [ROW_LENGTH]);
      });
    } else {
      const [ny, nx] = shape.slice(-2);
      const tiles = [...kept, Math.ceil(ny / PLANE_PIXELS), Math.ceil(nx / PLANE_PIXELS), PLANE_PIXELS, PLANE_PIXELS];
      add('tiles', tiles, { long_name: label, interpretation: 'image' }, async (selection, signal) => {
        const parts = (selection ?? '').split(',');
        const at = parts.slice(0, -2).map(Number);
        if (parts.length !== tiles.length || at.some(Number.isNaN) || parts.slice(-2).join() !== ':,:') {
          throw new Error('tiles are looked at one by one: choose the last two axes as y and x');
        }
        const [ty, tx] = at.slice(-2);
        const span = (tile: number, length: number): string =>
          `${tile * PLANE_PIXELS}:${Math.min((tile + 1) * PLANE_PIXELS, length)}`;
        const key = [...at.slice(0, -2), span(ty, ny), span(tx, nx)].join(',');
        return padded(await read(key, signal), [PLANE_PIXELS, PLANE_PIXELS]);
      });
    }
    const own = this.describe(path, entry);
    const nexus: AttributeValues = {
      NX_class: 'NXdata',
      signal: 'overview',
      axes: [...kept.map(() => '.'), ...axes],
      title: `${label} ${JSON.stringify(shape)}: overview`
    };
    const taken = new Set(Object.keys(nexus));
    this.attributes.set(path, { ...this.attributes.get(path), ...nexus });
    const group: Group & { children: ChildEntity[] } = {
      name: label,
      path,
      kind: EntityKind.Group,
      attributes: [...own.filter(a => !taken.has(a.name)), ...attributesOf(nexus)],
      children
    };
    this.made.set(path, group);
    return group;
  }

  /** Lines by the least and greatest of each bin, planes by means; where that would take long, by single values. */
  private async overview(path: string, entry: Entry, selection: string, signal?: AbortSignal): Promise<Values> {
    const { shape } = entry.geometry!;
    const isLine = shape.length === 1;
    const isSampled = shape.reduce((a, b) => a * b, itemsizeOf(entry)) > MAX_REDUCED_NBYTES;
    const pixels = isLine ? LINE_PIXELS : PLANE_PIXELS;
    const ask = (method: string, maxPixels: number): Promise<Overview> =>
      this.service.overview(this.addressAt(path), { maxPixels, method, selection, version: entry.version, signal });
    const stride = (): Promise<Overview> => ask('stride', pixels);
    if (isSampled) {
      return masked(await stride());
    }
    try {
      const found = masked(await (isLine ? ask('minmax', pixels / 2) : ask('mean', pixels)));
      // Least and greatest, one after the other.
      return isLine ? { ...found, shape: [found.data.length] } : found;
    } catch (error) {
      if (error instanceof ServiceError && error.status === TOO_LARGE) {
        return masked(await stride());
      }
      throw error;
    }
  }

  private madeDataset(path: string, name: string, dims: number[], attributes: AttributeValues): Dataset {
    this.attributes.set(path, attributes);
    return {
      name,
      path,
      kind: EntityKind.Dataset,
      attributes: attributesOf(attributes),
      shape: shapeOf(dims),
      type: { class: DTypeClass.Float, size: 64, endianness: 'little-endian' }
    };
  }
}

const SUFFIX = '.b2nd';
/** A name or path as it is here: datasets without `.b2nd`, as NeXus names them, and nothing in it that is not seen. */
const localName = (name: string): string => plain(name.endsWith(SUFFIX) ? name.slice(0, -SUFFIX.length) : name);

/** Values of an overview as numbers, those that stand for none as NaN. */
function masked(overview: Overview): Values {
  const data = Float64Array.from(overview.data as ArrayLike<number | bigint>, Number);
  for (const fill of overview.fills) {
    data.forEach((value, i) => value === fill && (data[i] = NaN));
  }
  return { ...overview, data };
}

/** The two last axes of a shape, as rows and columns. */
function rowsOf(shape: number[]): [number, number] {
  return shape.length === 1 ? [1, shape[0]] : [shape[shape.length - 2], shape[shape.length - 1]];
}

/** Numbers on another grid over the same range, each the nearest one. */
function stretched({ data, shape }: Values, target: number[]): Float64Array {
  const [ny, nx] = rowsOf(shape);
  const [ty, tx] = rowsOf(target);
  const out = new Float64Array(ty * tx);
  for (let y = 0; y < ty; y++) {
    const row = Math.floor((y * ny) / ty) * nx;
    for (let x = 0; x < tx; x++) {
      out[y * tx + x] = data[row + Math.floor((x * nx) / tx)] as number;
    }
  }
  return out;
}

/** Numbers in the corner of a larger grid; what is missing is NaN. */
function padded({ data, shape }: Values, target: number[]): Float64Array {
  const [ny, nx] = rowsOf(shape);
  const [ty, tx] = rowsOf(target);
  const out = new Float64Array(ty * tx).fill(NaN);
  for (let y = 0; y < ny; y++) {
    for (let x = 0; x < nx; x++) {
      out[y * tx + x] = Number(data[y * nx + x]);
    }
  }
  return out;
}

const itemsizeOf = (entry: Entry): number => parseDType(entry.geometry!.dtype).itemsize;

function forH5Web(data: ArrayLike<unknown>, type: ItemType, isScalar: boolean): unknown {
  if (isScalar) {
    return type.kind === 'b' ? Boolean(data[0]) : data[0];
  }
  return data;
}

function attributesOf(values: AttributeValues): Attribute[] {
  return Object.entries(values).map(([name, value]) => ({
    name,
    shape: shapeOf(Array.isArray(value) ? [value.length] : []),
    type: TEXT
  }));
}

/** An attribute's value as H5Web takes it: no typed arrays. */
function simple({ value }: AttributeValue): unknown {
  if (ArrayBuffer.isView(value)) {
    return Array.from(value as unknown as ArrayLike<number | Complex>);
  }
  return typeof value === 'string' ? plainText(value) : value;
}

/** A value with words for numbers that JSON lacks. */
function worded(value: unknown): unknown {
  if (Array.isArray(value)) {
    return value.map(worded);
  }
  return typeof value === 'number' && !Number.isFinite(value) ? String(value) : value;
}

const TEXT: DType = { class: DTypeClass.String, charSet: 'UTF-8', strPad: undefined };

function typeOfAttribute(attribute: AttributeValue): DType {
  return attribute.type === 'text' ? TEXT : h5webType(attribute.type);
}

/** Dimensions that know their names; see scripts/h5web.mjs. */
function named(shape: number[], names: string[] | undefined): number[] {
  return names?.length === shape.length ? Object.assign([...shape], { names: names.map((name, i) => name || `D${i}`) }) : shape;
}

function shapeOf(dims: number[] | null): Shape {
  if (!dims) {
    return { class: ShapeClass.Null };
  }
  return dims.length ? { class: ShapeClass.Array, dims } : { class: ShapeClass.Scalar, dims: [] };
}

function typeOf(form: Parameters<typeof parseDType>[0], entry: Entry): DType {
  let type: ItemType;
  try {
    type = parseDType(form);
  } catch {
    return { class: DTypeClass.Unknown };
  }
  const names = entry.storage?.enum as Record<string, number> | undefined;
  const base = h5webType(type);
  if (names && base.class === DTypeClass.Integer) {
    const mapping = Object.fromEntries(Object.entries(names).map(([name, value]) => [value, name]));
    return { class: DTypeClass.Enum, base, mapping };
  }
  return base;
}

function h5webType(type: ItemType): DType {
  const endianness = 'little-endian' as const;
  switch (type.kind) {
    case 'i':
    case 'u':
      return { class: DTypeClass.Integer, signed: type.kind === 'i', size: 8 * type.itemsize, endianness };
    case 'f':
      // Wider and narrower ones arrive as the nearest that JavaScript has.
      return { class: DTypeClass.Float, size: type.itemsize > 4 ? 64 : 32, endianness };
    case 'b':
      return { class: DTypeClass.Bool, base: { class: DTypeClass.Integer, signed: false, size: 8, endianness } };
    case 'c': {
      const part = { class: DTypeClass.Float as const, size: type.itemsize > 8 ? 64 : 32, endianness };
      return { class: DTypeClass.Complex, realType: part, imagType: part };
    }
    case 'struct':
      return { class: DTypeClass.Compound, fields: new Map(type.fields!.map(f => [f.name, h5webType(f.type)])) };
    case 'array':
      return { class: DTypeClass.Array, base: h5webType(type.base!), dims: type.dims! };
    case 'V':
      return { class: DTypeClass.Opaque, tag: `${type.itemsize} bytes` };
    default:
      return TEXT;
  }
}

interface StoredFilter {
  id?: unknown;
  name?: unknown;
}

/** Filters as they are told: HDF5's have a number and a name, Blosc2's codec and filters a name alone. */
function filtersOf(entry: Entry): { id: number; name: string }[] {
  const storage = entry.storage ?? {};
  const told = [storage.codec, ...(Array.isArray(storage.filters) ? (storage.filters as unknown[]) : [])];
  return told
    .filter(filter => filter !== undefined && filter !== null)
    .map((filter, index) => {
      const { id, name } = filter as StoredFilter;
      return { id: typeof id === 'number' ? id : index, name: typeof name === 'string' ? name : String(filter) };
    });
}
