/** The routes of a subscriber that the browser uses, as typed calls over any transport. */

import type { GetOptions, RootMessage, Transport } from '../transport';
import { bodyOf, getJson, query, sendJson, ServiceError } from '../transport';
import type { DtypeForm } from './format';

export interface Geometry {
  shape: number[];
  chunks: number[];
  blocks: number[];
  dtype: DtypeForm;
}

export interface Entry {
  path: string;
  kind: 'group' | 'array' | 'file' | 'link' | 'unsupported' | string;
  id?: string;
  version?: string;
  geometry?: Geometry;
  attrs?: { [name: string]: unknown };
  attrs_tag?: string;
  attrs_inline?: boolean;
  dims?: (string | null)[];
  cbytes?: number;
  mtime_ns?: number;
  media_type?: string;
  reason?: string;
  storage?: { [name: string]: unknown };
}

export interface RootStatus {
  name: string;
  online?: boolean;
  followed?: boolean;
  since?: string;
  reason?: string;
  writable?: boolean;
}

/** Is a root there? One that is only being listed is. */
export function isOnline(root: { online?: boolean; reason?: string } | undefined): boolean {
  return root?.online !== false || root.reason === 'being listed';
}

export interface Page {
  epoch: string;
  seq: number;
  items: Entry[];
  next: string | null;
}

export interface CachedDataset {
  path: string;
  id: string;
  version: string;
  nbytes: number;
  pinned: boolean;
}

export interface CacheStatus {
  datasets: CachedDataset[];
  pins: string[];
}

export interface RootUse {
  root: string;
  online: boolean;
  followed: boolean;
  since?: string;
  reason?: string;
  /** Bytes of the newest versions that are kept, and what all of them take where they come from. */
  kept_nbytes: number;
  total_nbytes: number;
}

/** What the running state shows. */
export interface Summary {
  directory: string;
  quota_nbytes: number;
  usage_nbytes: number;
  counters: { [name: string]: number };
  reads: { held_blocks: number; held_nbytes: number; fetched_blocks: number; fetched_nbytes: number; since: number };
  roots: RootUse[];
}

export interface Estimate {
  blocks: number;
  held_blocks: number;
  cbytes: number;
}

export interface PrefetchLine {
  done_cbytes?: number;
  cbytes?: number;
  done?: boolean;
  error?: string;
  detail?: string;
  status?: number;
}

export class Service {
  constructor(readonly transport: Transport) {}

  async roots(): Promise<RootStatus[]> {
    return (await getJson<{ roots: RootStatus[] }>(this.transport, 'api/v1/roots')).roots;
  }

  /** Direct children of a group, a page of them. */
  children(root: string, under: string, after: string, limit: number, options?: GetOptions): Promise<Page> {
    return this.catalog(root, { under: under || undefined, depth: 1, after: after || undefined, limit }, options);
  }

  /** What matches a filter, anywhere in a root. */
  search(root: string, q: string, after: string, limit: number, options?: GetOptions): Promise<Page> {
    return this.catalog(root, { q, after: after || undefined, limit }, options);
  }

  private catalog(root: string, parameters: { [name: string]: string | number | undefined }, options?: GetOptions): Promise<Page> {
    return getJson<Page>(this.transport, query(`api/v1/roots/${encodeURIComponent(root)}/catalog`, parameters), options);
  }

  meta(address: string, options?: GetOptions): Promise<Entry> {
    return getJson<Entry>(this.transport, query('api/v1/meta', { path: address }), options);
  }

  async follow(root: string, followed: boolean): Promise<void> {
    await sendJson(this.transport, followed ? 'POST' : 'DELETE', `api/v1/roots/${encodeURIComponent(root)}/follow`);
  }

  cache(address: string, options?: GetOptions): Promise<CacheStatus> {
    return getJson<CacheStatus>(this.transport, query('api/v1/cache', { path: address }), options);
  }

  summary(options?: GetOptions): Promise<Summary> {
    return getJson<Summary>(this.transport, 'api/v1/cache/summary', options);
  }

  estimate(address: string, options?: GetOptions): Promise<Estimate> {
    return this.post<Estimate>('api/v1/cache/estimate', { path: address }, options);
  }

  pin(address: string, pinned: boolean): Promise<unknown> {
    return this.post(`api/v1/cache/${pinned ? 'pin' : 'unpin'}`, { path: address });
  }

  clear(address: string): Promise<{ datasets: number; nbytes: number }> {
    return this.post('api/v1/cache/clear', { path: address });
  }

  private async post<T>(path: string, body: unknown, options?: GetOptions): Promise<T> {
    const answer = await this.transport.send('POST', path, body, options);
    return JSON.parse(new TextDecoder().decode(await bodyOf(answer))) as T;
  }

  /** Fetch all of a dataset that is not kept yet; `tell` hears how far it is. */
  async prefetch(address: string, tell: (line: PrefetchLine) => void, signal: AbortSignal): Promise<void> {
    let last: PrefetchLine = {};
    const onLine = (text: string): void => {
      last = JSON.parse(text) as PrefetchLine;
      tell(last);
    };
    const answer = await this.transport.send('POST', 'api/v1/cache/prefetch', { path: address }, { signal, onLine });
    await bodyOf(answer);
    if (last.error !== undefined) {
      throw new ServiceError(last.status ?? 500, last.detail ?? '', last.error);
    }
    if (last.done !== true) {
      throw new ServiceError(0, 'the answer was cut short: try again');
    }
  }

  /** The stored bytes of a dataset: a file as it is, an array as a `.b2nd`. */
  async download(address: string, entry: Entry, options: GetOptions): Promise<Uint8Array<ArrayBuffer>> {
    return bodyOf(await this.transport.get(downloadPath(address, entry), options));
  }

  events(root: string, callback: (message: RootMessage) => void): () => void {
    return this.transport.events(root, callback);
  }

  /** Hear which roots there are: at once, and whenever one comes, goes or stands otherwise. */
  rootsTold(callback: (roots: RootStatus[]) => void): () => void {
    return this.transport.events('', message => {
      if (message.type === 'roots' && Array.isArray(message.roots)) {
        callback(message.roots as RootStatus[]);
      }
    });
  }
}

/** Where the stored bytes are. */
export function downloadPath(address: string, entry: Entry): string {
  const inFile = entry.storage?.hdf5 !== undefined && entry.kind === 'array';
  const route = inFile ? 'api/download/' : 'api/v1/files/';
  return route + address.split('/').map(encodeURIComponent).join('/');
}

/** Name of what `downloadPath` gives. */
export function downloadName(entry: Entry): string {
  return entry.path.split('/').pop() || 'data';
}
