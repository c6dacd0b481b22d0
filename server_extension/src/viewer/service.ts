// What the viewer and displays ask of a subscriber: entries, listings, values and overviews.
import { Answer, bodyOf, getJson, GetOptions, query, Transport } from '../transport';
import { BigArray, DTypeForm, ItemType, itemsOf, NumberArray, parseDType } from './dtypes';

export interface Geometry {
  shape: number[];
  chunks: number[];
  blocks: number[];
  dtype: DTypeForm;
}

/** A line of a catalog, see docs/protocol.md. */
export interface Entry {
  path: string;
  kind: 'group' | 'array' | 'file' | 'link' | 'unsupported';
  root?: string;
  version?: string;
  geometry?: Geometry;
  attrs?: Record<string, unknown>;
  attrs_inline?: boolean;
  dims?: string[];
  cbytes?: number;
  mtime_ns?: number;
  media_type?: string;
  reason?: string;
  target?: string;
  storage?: Record<string, unknown>;
}

export interface Page {
  items: Entry[];
  next?: string | null;
}

export interface Values {
  data: NumberArray | BigArray | unknown[];
  shape: number[];
  dtype: ItemType;
}

export interface Overview extends Values {
  /** Items that a value stands for, along each axis of the selection's box. */
  steps: number[];
  method: string;
  /** Stored values that stand for none. */
  fills: number[];
}

/** An address `ROOT/PATH` of an entry that was listed in a root. */
export const addressOf = (root: string, path: string): string => (path ? `${root}/${path}` : root);

export const rootOf = (address: string): string => address.split('/', 1)[0];
export const pathOf = (address: string): string => address.slice(rootOf(address).length + 1);
export const nameOf = (address: string): string => address.slice(address.lastIndexOf('/') + 1);

export class Service {
  constructor(readonly transport: Transport) {}

  entry(address: string, signal?: AbortSignal): Promise<Entry> {
    return getJson(this.transport, query('api/v1/meta', { path: address }), { signal });
  }

  /** Direct children of a group, or with `depth` 2 theirs as well. */
  page(address: string, options: { depth: number; limit: number; after?: string }, signal?: AbortSignal): Promise<Page> {
    const path = `api/v1/roots/${encodeURIComponent(rootOf(address))}/catalog`;
    const under = pathOf(address) || undefined;
    return getJson(this.transport, query(path, { under, ...options }), { signal });
  }

  /** The values of a selection as the protocol writes it (`"0,:,5:10"`); all of them without one. */
  async values(address: string, selection?: string, options: GetOptions & { version?: string } = {}): Promise<Values> {
    const path = query('api/v1/values', { path: address, sel: selection, version: options.version });
    return valuesOf(await this.transport.get(path, options));
  }

  /** Fewer values of a selection, made by the service: at most `maxPixels` along each axis, often fewer. */
  async overview(
    address: string,
    options: GetOptions & { maxPixels: number; selection?: string; version?: string; method?: string }
  ): Promise<Overview> {
    const path = query('api/v1/overview', {
      path: address,
      sel: options.selection,
      max_pixels: options.maxPixels,
      method: options.method,
      version: options.version
    });
    const answer = await this.transport.get(path, options);
    const values = await valuesOf(answer);
    const told = JSON.parse(answer.headers.get('X-Caterva2-Overview') ?? '{}') as Partial<Overview>;
    return { ...values, steps: told.steps ?? [], method: told.method ?? '', fills: (told.fills ?? []).map(Number) };
  }

  /** The stored bytes of a file. */
  async file(address: string, options: GetOptions = {}): Promise<Uint8Array<ArrayBuffer>> {
    return bodyOf(await this.transport.get(query('api/v1/file', { path: address }), options));
  }
}

async function valuesOf(answer: Answer): Promise<Values> {
  const bytes = await bodyOf(answer);
  if (answer.headers.get('Content-Type')?.startsWith('application/json')) {
    const form = JSON.parse(new TextDecoder().decode(bytes)) as unknown;
    const data = Array.isArray(form) ? (form.flat(Infinity) as unknown[]) : [form];
    return { data, shape: shapeOf(answer, data), dtype: parseDType('vlen-utf8') };
  }
  const header = answer.headers.get('X-Caterva2-Dtype') ?? '';
  const form = (/^[[{"]/.test(header) ? JSON.parse(header) : header) as DTypeForm;
  const dtype = parseDType(form);
  const data = itemsOf(bytes, dtype);
  return { data, shape: shapeOf(answer, data), dtype };
}

function shapeOf(answer: Answer, data: ArrayLike<unknown>): number[] {
  const header = answer.headers.get('X-Caterva2-Shape');
  return header ? (JSON.parse(header) as number[]) : [data.length];
}
