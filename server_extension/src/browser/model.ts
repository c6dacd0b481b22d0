/**
 * What the tree holds: roots, and of each opened group the pages that have been asked for. It has no elements;
 * `rows()` is what is to be seen, in order. Live changes are put where they belong without asking again.
 */

import type { RootMessage } from '../transport';
import type { Explanation } from './failures';
import { explain, isAbort } from './failures';
import type { Entry, Page, RootStatus, Service } from './service';

export const PAGE = 200;

export interface TreeNode {
  readonly address: string;
  readonly root: string;
  readonly path: string;
  readonly name: string;
  readonly level: number;
  readonly parent: TreeNode | null;
  kind: string;
  entry?: Entry;
  status?: RootStatus;
  isOpen: boolean;
  isLoading: boolean;
  children: TreeNode[] | null;
  /** `after` of the page that follows; null when all are here. */
  next: string | null;
  failure?: Explanation;
  /** When it changed last while it was shown, in ms of `performance.now()`. */
  changedAt?: number;
}

export type Row =
  | { type: 'node'; node: TreeNode; position: number }
  | { type: 'more'; node: TreeNode }
  | { type: 'loading'; node: TreeNode }
  | { type: 'empty'; node: TreeNode }
  | { type: 'failure'; node: TreeNode; failure: Explanation };

export function canOpen(node: TreeNode): boolean {
  return node.kind === 'root' || node.kind === 'group';
}

export class TreeModel {
  roots: TreeNode[] = [];
  /** Called after each change. */
  onChange: () => void = () => undefined;
  /** Called for each node that changed at its publisher, or could not be listed, or could again. */
  onNodeChange: (node: TreeNode) => void = () => undefined;
  private filterText = '';
  private openBefore = new Set<string>();
  private shown: Row[] | null = null;
  private readonly listening = new Map<string, () => void>();
  private abort = new AbortController();

  constructor(private readonly service: Service) {}

  get filter(): string {
    return this.filterText;
  }

  /** Set the filter; the tree becomes a list of what matches. */
  setFilter(text: string): void {
    if (text === this.filterText) {
      return;
    }
    if (this.filterText === '') {
      this.openBefore = new Set(this.roots.filter(root => root.isOpen).map(root => root.root));
    }
    this.filterText = text;
    this.abort.abort();
    this.abort = new AbortController();
    for (const root of this.roots) {
      this.reset(root);
      root.isOpen = text !== '' || this.openBefore.has(root.root);
      if (root.isOpen) {
        void this.load(root);
      }
    }
    this.changed();
  }

  private reset(node: TreeNode): void {
    node.children = null;
    node.next = null;
    node.failure = undefined;
    node.isLoading = false;
  }

  /** Take up which roots there are. */
  setRoots(statuses: RootStatus[]): void {
    const before = new Map(this.roots.map(root => [root.root, root]));
    const wasEmpty = before.size === 0;
    this.roots = [...statuses].sort(publishedFirst).map(status => {
      const known = before.get(status.name);
      before.delete(status.name);
      if (known === undefined) {
        const node = rootNode(status);
        node.changedAt = wasEmpty ? undefined : performance.now();
        return node;
      }
      const isBack = status.online === true && known.status?.online === false;
      known.status = status;
      if (isBack && known.failure !== undefined) {
        void this.load(known);
      }
      return known;
    });
    for (const name of before.keys()) {
      this.listening.get(name)?.();
      this.listening.delete(name);
    }
    this.changed();
  }

  private changed(): void {
    this.shown = null;
    this.onChange();
  }

  rows(): Row[] {
    if (this.shown === null) {
      this.shown = [];
      this.collect(this.roots, this.shown);
    }
    return this.shown;
  }

  private collect(nodes: TreeNode[], rows: Row[]): void {
    nodes.forEach((node, index) => {
      rows.push({ type: 'node', node, position: index + 1 });
      if (!node.isOpen) {
        return;
      }
      if (node.children !== null) {
        this.collect(node.children, rows);
      }
      if (node.failure !== undefined) {
        rows.push({ type: 'failure', node, failure: node.failure });
      } else if (node.children === null) {
        rows.push({ type: 'loading', node });
      } else if (node.next !== null) {
        rows.push({ type: 'more', node });
      } else if (node.children.length === 0) {
        rows.push({ type: 'empty', node });
      }
    });
  }

  async setOpen(node: TreeNode, isOpen: boolean): Promise<void> {
    if (!canOpen(node) || (node.isOpen === isOpen && node.failure === undefined)) {
      return;
    }
    node.isOpen = isOpen;
    if (isOpen) {
      this.listen(node.root);
      if (node.children === null || node.failure !== undefined) {
        void this.load(node);
      }
    }
    this.changed();
  }

  /** Ask for a page of the children of a node: the first, or the one that follows. */
  async load(node: TreeNode): Promise<void> {
    if (node.isLoading) {
      return;
    }
    const failedBefore = node.failure;
    node.isLoading = true;
    node.failure = undefined;
    const signal = this.abort.signal;
    const after = node.children === null ? '' : (node.next ?? '');
    try {
      const page = await this.page(node, after, signal);
      if (!signal.aborted) {
        const known = node.children ?? [];
        const fresh = page.items.filter(item => item.path !== '' && item.path !== node.path);
        node.children = known.concat(fresh.map(item => this.child(node, item)));
        node.next = page.next;
      }
    } catch (error) {
      if (!signal.aborted && !isAbort(error)) {
        node.failure = explain(error);
      }
    } finally {
      if (!signal.aborted) {
        node.isLoading = false;
        this.changed();
        if (node.failure !== failedBefore) {
          this.onNodeChange(node);
        }
      }
    }
  }

  private page(node: TreeNode, after: string, signal: AbortSignal): Promise<Page> {
    if (this.filterText !== '' && node.kind === 'root') {
      return this.service.search(node.root, this.filterText, after, PAGE, { signal });
    }
    return this.service.children(node.root, node.path, after, PAGE, { signal });
  }

  private child(parent: TreeNode, entry: Entry): TreeNode {
    const inFilter = this.filterText !== '' && parent.kind === 'root';
    return {
      address: `${parent.root}/${entry.path}`,
      root: parent.root,
      path: entry.path,
      name: inFilter ? entry.path : entry.path.slice(parent.path === '' ? 0 : parent.path.length + 1),
      level: parent.level + 1,
      parent,
      kind: entry.kind,
      entry,
      isOpen: false,
      isLoading: false,
      children: null,
      next: null
    };
  }

  /** Ask again for whatever is open. */
  async reload(root?: TreeNode): Promise<void> {
    const opened: TreeNode[] = [];
    const visit = (node: TreeNode): void => {
      if (node.isOpen) {
        opened.push(node);
        node.children?.forEach(visit);
      }
    };
    (root === undefined ? this.roots : [root]).forEach(visit);
    await Promise.all(opened.map(node => this.renew(node)));
  }

  /** List a node again, as far as it was listed, keeping what is open in it. */
  private async renew(node: TreeNode): Promise<void> {
    const before = new Map((node.children ?? []).map(child => [child.path, child]));
    const signal = this.abort.signal;
    let after = '';
    const items: Entry[] = [];
    try {
      do {
        const page = await this.page(node, after, signal);
        items.push(...page.items.filter(item => item.path !== '' && item.path !== node.path));
        after = page.next ?? '';
      } while (after !== '' && items.length < before.size);
    } catch (error) {
      if (!signal.aborted && !isAbort(error)) {
        node.failure = explain(error);
        this.changed();
      }
      return;
    }
    node.failure = undefined;
    node.isLoading = false;
    node.children = items.map(item => {
      const known = before.get(item.path);
      if (known === undefined || known.kind !== item.kind) {
        return this.child(node, item);
      }
      known.entry = item;
      return known;
    });
    node.next = after === '' ? null : after;
    this.changed();
  }

  // Live

  private listen(root: string): void {
    if (!this.listening.has(root)) {
      this.listening.set(
        root,
        this.service.events(root, message => this.take(message))
      );
    }
  }

  /** Take up a message of a root. */
  take(message: RootMessage): void {
    const root = this.roots.find(node => node.root === message.root);
    if (root === undefined) {
      return;
    }
    if (message.type === 'status') {
      if (root.status !== undefined && root.status.online !== message.online) {
        root.status = { ...root.status, online: message.online, since: undefined, reason: undefined };
        if (message.online === true && root.failure !== undefined) {
          void this.load(root);
        }
        this.changed();
      }
    } else if (message.type === 'resync') {
      void this.reload(root);
    } else if (message.events !== undefined && message.events.length > 0) {
      if (this.filterText !== '') {
        void this.reload(root); // only the service knows what matches
        return;
      }
      for (const event of message.events) {
        if (event.change === 'put') {
          this.put(root, event.entry as Entry);
        } else {
          this.remove(root, event.path);
        }
      }
      this.changed();
    }
  }

  private put(root: TreeNode, entry: Entry): void {
    if (typeof entry?.path !== 'string' || entry.path === '') {
      return;
    }
    const parent = this.find(root, parentPath(entry.path));
    if (parent === null || parent.children === null) {
      return;
    }
    const siblings = parent.children;
    const at = lowerBound(siblings, entry.path);
    let node = siblings[at];
    if (node !== undefined && node.path === entry.path) {
      const isNew = node.entry?.version !== entry.version || node.kind !== entry.kind;
      node.kind = entry.kind;
      node.entry = entry;
      if (!isNew) {
        return;
      }
    } else if (at === siblings.length && parent.next !== null) {
      return; // it comes with a later page
    } else {
      node = this.child(parent, entry);
      siblings.splice(at, 0, node);
    }
    node.changedAt = performance.now();
    this.onNodeChange(node);
  }

  private remove(root: TreeNode, path: string): void {
    const parent = this.find(root, parentPath(path));
    const at = parent?.children?.findIndex(child => child.path === path) ?? -1;
    if (parent?.children && at >= 0) {
      const [gone] = parent.children.splice(at, 1);
      this.onNodeChange(gone);
    }
  }

  /** A node that is loaded. */
  find(root: TreeNode, path: string): TreeNode | null {
    let node: TreeNode = root;
    while (node.path !== path) {
      const next: TreeNode | undefined = node.children?.find(
        child => child.path === path || path.startsWith(`${child.path}/`)
      );
      if (next === undefined) {
        return null;
      }
      node = next;
    }
    return node;
  }

  dispose(): void {
    this.abort.abort();
    this.listening.forEach(stop => stop());
    this.listening.clear();
  }
}

/** Is a root an area of the subscriber itself, which may be written to? */
export function isArea(root: string): boolean {
  return root.startsWith('@');
}

function publishedFirst(a: RootStatus, b: RootStatus): number {
  return Number(isArea(a.name)) - Number(isArea(b.name)) || comparePaths(a.name, b.name);
}

function rootNode(status: RootStatus): TreeNode {
  return {
    address: status.name,
    root: status.name,
    path: '',
    name: status.name,
    level: 1,
    parent: null,
    kind: 'root',
    status,
    isOpen: false,
    isLoading: false,
    children: null,
    next: null
  };
}

function parentPath(path: string): string {
  const cut = path.lastIndexOf('/');
  return cut < 0 ? '' : path.slice(0, cut);
}

/** Catalogs are ascending by the bytes of their paths: code points, not what a language makes of them. */
export function comparePaths(a: string, b: string): number {
  if (a === b) {
    return 0;
  }
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    const x = a.charCodeAt(i);
    const y = b.charCodeAt(i);
    if (x !== y) {
      // Surrogates stand for code points above all others.
      const isHighX = x >= 0xd800 && x < 0xe000;
      const isHighY = y >= 0xd800 && y < 0xe000;
      return isHighX === isHighY ? x - y : isHighX ? 1 : -1;
    }
  }
  return a.length - b.length;
}

function lowerBound(nodes: TreeNode[], path: string): number {
  let low = 0;
  let high = nodes.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (comparePaths(nodes[middle].path, path) < 0) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}
