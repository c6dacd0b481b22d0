/** All that is known of what is selected, and what can be done with it. */

import { shown, shownPath } from '../text';
import type { CodeVariant } from './code';
import { variantsFor } from './code';
import { button, icon, make } from './dom';
import { explain, isAbort } from './failures';
import { formatAttribute, formatBytes, formatCount, formatDtype, formatFraction, formatShape, formatTime, itemNbytes, product } from './format';
import type { TreeNode } from './model';
import { isArea } from './model';
import { AREAS } from './tree';
import type { CacheStatus, Entry, Estimate, RootStatus, Service } from './service';
import { isOnline } from './service';

const LOOKUP_MS = 150;
const MAX_ATTRIBUTES = 200;

/** What buttons of the details do. */
export interface Actions {
  view?(node: TreeNode): void;
  code(node: TreeNode, variant: CodeVariant): void;
  /** "Insert code", or "Copy code" where there is no notebook to insert into. */
  readonly codeLabel: string;
  download(node: TreeNode): void;
  prefetch(node: TreeNode): void;
  pin(node: TreeNode, pinned: boolean): void;
  clear(node: TreeNode): void;
  follow(node: TreeNode, followed: boolean): void;
  /** Ask again for what is in it. */
  listAgain(node: TreeNode): void;
  /** Say why something cannot be done now. */
  refuse(why: string): void;
  /** More buttons, for what can be written to. */
  extra?(node: TreeNode): HTMLElement[];
}

export class Details {
  readonly element = make('section', { class: 'c2b-details', 'aria-label': 'Properties', hidden: true });
  variant: CodeVariant = 'array';
  private node: TreeNode | null = null;
  private timer = 0;
  private abort: AbortController | null = null;
  private pinned = false;

  constructor(
    private readonly service: Service,
    private readonly actions: Actions,
    private readonly isFollowed: (root: string) => boolean
  ) {}

  get shown(): TreeNode | null {
    return this.node;
  }

  /** Show a node; what has to be asked for follows when the selection rests. */
  show(node: TreeNode | null): void {
    const isSame = node?.address === this.node?.address;
    this.node = node;
    this.abort?.abort();
    window.clearTimeout(this.timer);
    this.element.hidden = node === null;
    if (node === null) {
      return;
    }
    if (!isSame) {
      this.pinned = false;
      this.element.scrollTop = 0;
    }
    this.draw(node, node.entry ?? null);
    const abort = (this.abort = new AbortController());
    this.timer = window.setTimeout(() => void this.lookUp(node, abort.signal), LOOKUP_MS);
  }

  /** Ask again how much of it is kept. */
  lookAgain(): void {
    if (this.node !== null) {
      this.abort?.abort();
      window.clearTimeout(this.timer);
      void this.lookUp(this.node, (this.abort = new AbortController()).signal);
    }
  }

  private async lookUp(node: TreeNode, signal: AbortSignal): Promise<void> {
    const entry = node.entry;
    if (node.kind === 'root' || entry === undefined) {
      return;
    }
    const slot = this.element.querySelector('.c2b-cache-state');
    try {
      if (entry.attrs_inline === false) {
        const full = await this.service.meta(node.address, { signal });
        node.entry = { ...entry, attrs: full.attrs, attrs_inline: true };
        this.element.querySelector('.c2b-attributes')?.replaceWith(attributesOf(node.entry));
      }
      if (entry.geometry !== undefined && slot !== null) {
        const [cache, estimate] = await Promise.all([
          this.service.cache(node.address, { signal }),
          this.service.estimate(node.address, { signal })
        ]);
        this.drawCache(node, slot, cache, estimate);
      }
    } catch (error) {
      if (!isAbort(error) && !signal.aborted && slot !== null) {
        const { title, cure } = explain(error);
        slot.replaceChildren(make('span', { class: 'c2b-bad', text: `${title} ${cure}` }));
      }
    }
  }

  private drawCache(node: TreeNode, slot: Element, cache: CacheStatus, estimate: Estimate): void {
    const part = estimate.blocks === 0 ? 1 : estimate.held_blocks / estimate.blocks;
    const nbytes = cache.datasets.reduce((sum, kept) => sum + kept.nbytes, 0);
    const others = cache.datasets.filter(kept => kept.version !== node.entry?.version).length;
    const meter = make('progress', { max: 1, value: part, 'aria-label': 'Part that is kept on this server' });
    const text = `${formatFraction(part)} (${formatCount(estimate.held_blocks)} of ${formatCount(estimate.blocks)} blocks, ${formatBytes(nbytes)})`;
    slot.replaceChildren(meter, make('span', { text }));
    if (others > 0) {
      slot.append(make('span', { class: 'c2b-faint', text: ` and ${others} older version${others > 1 ? 's' : ''}` }));
    }
    this.pinned = cache.pins.includes(node.address) || cache.datasets.some(kept => kept.pinned);
    if (this.pinned) {
      slot.append(make('span', { class: 'c2b-badge', text: 'pinned' }));
    }
    this.element.querySelector('.c2b-pin')?.replaceWith(this.pinButton(node));
  }

  private draw(node: TreeNode, entry: Entry | null): void {
    const title = node.kind === 'root' ? node.name : (node.path.split('/').pop() ?? node.path);
    const heading = make(
      'h3',
      { class: 'c2b-heading', title: shownPath(node.address) },
      icon(node.kind, 'c2b-kind'),
      make('span', { text: shown(title) })
    );
    const parts: HTMLElement[] = [heading, this.toolbar(node), make('div', { class: 'c2b-place' })];
    if (node.failure !== undefined) {
      parts.push(
        make(
          'div',
          { class: 'c2b-notice', role: 'alert' },
          make('strong', { text: node.failure.title }),
          make('p', { text: node.failure.cure }),
          button('Try again', 'refresh', () => this.actions.listAgain(node))
        )
      );
    }
    if (entry?.reason) {
      parts.push(make('p', { class: 'c2b-reason', text: entry.reason }));
    }
    parts.push(this.facts(node, entry));
    if (entry !== null && node.kind !== 'root') {
      parts.push(attributesOf(entry));
    }
    this.element.replaceChildren(...parts);
  }

  private toolbar(node: TreeNode): HTMLElement {
    const bar = make('div', { class: 'c2b-toolbar', role: 'group', 'aria-label': 'Actions' });
    const hasData = node.kind === 'array' || node.kind === 'file';
    const followed = this.isFollowed(node.root);
    if (this.actions.view !== undefined && (hasData || node.kind === 'group')) {
      bar.append(button('View', 'view', () => this.actions.view?.(node), { class: 'c2b-primary', title: 'Show it in the viewer (Enter)' }));
    }
    if (node.kind === 'root' && !node.root.startsWith('@')) {
      const isFollowed = node.status?.followed === true;
      bar.append(
        button(isFollowed ? 'Unfollow' : 'Follow', 'follow', () => this.actions.follow(node, !isFollowed), {
          class: isFollowed ? '' : 'c2b-primary',
          title: isFollowed
            ? 'Hear of its changes no more; what is kept of it goes when room is needed'
            : 'Hear of its changes, and keep on this server what is read of it'
        })
      );
    }
    if (hasData) {
      bar.append(button('Download', 'download', () => this.actions.download(node), { quiet: true, title: 'Download' }));
    }
    if (hasData && !isArea(node.root)) {
      const prefetch = button('Prefetch', 'prefetch', this.whereFollowed(node, 'Prefetch', () => this.actions.prefetch(node)), {
        quiet: true,
        title: followed ? 'Prefetch: keep all of it on this server, to be read offline' : 'Prefetch: follow its root first'
      });
      prefetch.setAttribute('aria-disabled', String(!followed));
      bar.append(prefetch, this.pinButton(node));
    }
    bar.append(...(this.actions.extra?.(node) ?? []));
    if (node.kind !== 'link' && node.kind !== 'unsupported') {
      bar.append(this.codeButtons(node));
    }
    return bar;
  }

  private codeButtons(node: TreeNode): HTMLElement {
    const variants = variantsFor(node.kind === 'root' ? 'root' : node.kind);
    const group = make('span', { class: 'c2b-code' });
    group.append(button(this.actions.codeLabel, 'code', () => this.actions.code(node, this.chosen(variants)), { title: `${this.actions.codeLabel}: lines of Python that open this` }));
    if (variants.length > 1) {
      const select = make('select', { class: 'c2b-select', 'aria-label': 'Library of the code' });
      for (const { id, label } of variants) {
        const option = make('option', { value: id, text: label });
        option.selected = id === this.variant;
        select.append(option);
      }
      select.addEventListener('change', () => (this.variant = select.value as CodeVariant));
      group.append(select);
    }
    return group;
  }

  private chosen(variants: readonly { id: CodeVariant }[]): CodeVariant {
    return variants.some(({ id }) => id === this.variant) ? this.variant : variants[0].id;
  }

  private pinButton(node: TreeNode): HTMLElement {
    const followed = this.isFollowed(node.root);
    const label = this.pinned ? 'Unpin' : 'Pin';
    const pin = button(label, 'pin', this.whereFollowed(node, label, () => this.actions.pin(node, !this.pinned)), {
      quiet: true,
      class: 'c2b-pin',
      title: !followed ? 'Pin: follow its root first' : this.pinned ? 'Unpin: let it go in its turn' : 'Pin: what is kept of it stays, whatever the quota'
    });
    pin.setAttribute('aria-pressed', String(this.pinned));
    pin.setAttribute('aria-disabled', String(!followed));
    return pin;
  }

  /** What only followed roots have can be pressed all the same: then it is said what has to be done first. */
  private whereFollowed(node: TreeNode, what: string, run: () => void): () => void {
    return () =>
      this.isFollowed(node.root)
        ? run()
        : this.actions.refuse(`${what}: follow ${shown(node.root)} first (select it, then “Follow”); only of followed roots something is kept here.`);
  }

  private facts(node: TreeNode, entry: Entry | null): HTMLElement {
    const list = make('dl', { class: 'c2b-facts-list' });
    const add = (term: string, value: string | HTMLElement): void => {
      list.append(make('dt', { text: term }), make('dd', {}, value));
    };
    if (node.kind === 'root' && isArea(node.root)) {
      add('Area', AREAS[node.root] ?? 'of this server');
      return list;
    }
    if (node.kind === 'root') {
      const status = node.status;
      add('State', isOnline(status) ? 'online' : offlineText(status));
      add('Followed', status?.followed === true ? 'yes: changes are shown as they happen, and what is read is kept' : 'no: read straight from its publisher, nothing is kept');
      return list;
    }
    add('Path', shownPath(node.address));
    const geometry = entry?.geometry;
    if (geometry !== undefined) {
      const nbytes = product(geometry.shape) * itemNbytes(geometry.dtype);
      if (node.kind === 'array') {
        const dims = entry?.dims ?? [];
        const named = geometry.shape.length > 0 && dims.length === geometry.shape.length && dims.some(Boolean);
        add('Shape', named ? dims.map((dim, i) => `${dim ?? '?'} ${geometry.shape[i]}`).join(' × ') : formatShape(geometry.shape));
        add('Type', formatDtype(geometry.dtype));
      } else {
        add('Type', entry?.media_type ?? 'file');
      }
      const stored = entry?.cbytes;
      const ratio = stored && nbytes >= 1.05 * stored ? ` (${(nbytes / stored).toFixed(1)}× smaller)` : '';
      add('Size', `${nbytes ? formatBytes(nbytes) : ''}${stored !== undefined ? `${nbytes ? ', ' : ''}${formatBytes(stored)} stored${ratio}` : ''}`);
      if (node.kind === 'array' && geometry.shape.length > 0) {
        add('Chunks', formatShape(geometry.chunks));
        add('Blocks', formatShape(geometry.blocks));
      }
    }
    if (geometry !== undefined && !isArea(node.root)) {
      add('Kept here', make('span', { class: 'c2b-cache-state' }, make('span', { class: 'c2b-faint', text: '…' })));
    }
    if (geometry === undefined && entry?.cbytes !== undefined) {
      add('Size', `${formatBytes(entry.cbytes)} stored`);
    }
    const compression = compressionOf(entry);
    if (compression !== '') {
      add('Compression', compression);
    }
    if (entry?.mtime_ns !== undefined) {
      add('Modified', formatTime(entry.mtime_ns / 1e6));
    }
    if (entry?.version !== undefined) {
      add('Version', entry.version);
    }
    return list;
  }
}

/** Since when, why, and what is to be done about it. */
function offlineText(status: RootStatus | undefined): string {
  const since = status?.since ? ` since ${formatTime(Date.parse(status.since))}` : '';
  const why = status?.reason ? `: ${status.reason}` : '';
  const kept = status?.followed === true ? 'What is kept of it here can be read.' : 'Nothing of it is kept here.';
  return `offline${since}${why}. ${kept} It is back as soon as its publisher and the broker are running.`;
}

function compressionOf(entry: Entry | null): string {
  const storage = entry?.storage ?? {};
  const parts: string[] = [];
  if (typeof storage.codec === 'string') {
    parts.push(`${storage.codec}${typeof storage.clevel === 'number' ? ` level ${storage.clevel}` : ''}`);
  }
  if (Array.isArray(storage.filters)) {
    const names = storage.filters.map(filter =>
      typeof filter === 'string' ? filter : String((filter as { name?: unknown } | null)?.name ?? JSON.stringify(filter))
    );
    parts.push(...names);
  }
  if (typeof storage.layout === 'string') {
    parts.push(storage.layout);
  }
  return parts.join(', ');
}

function attributesOf(entry: Entry): HTMLElement {
  const attributes = Object.entries(entry.attrs ?? {});
  const section = make('div', { class: 'c2b-attributes' });
  if (entry.attrs_inline === false) {
    section.append(make('p', { class: 'c2b-faint', text: 'Attributes are coming…' }));
    return section;
  }
  if (attributes.length === 0) {
    return section;
  }
  const body = make('tbody');
  for (const [name, value] of attributes.slice(0, MAX_ATTRIBUTES)) {
    body.append(make('tr', {}, make('th', { scope: 'row', text: name }), make('td', { text: formatAttribute(value) })));
  }
  section.append(
    make('h4', { text: `Attributes (${attributes.length})` }),
    make('table', { 'aria-label': 'Attributes' }, body)
  );
  if (attributes.length > MAX_ATTRIBUTES) {
    section.append(make('p', { class: 'c2b-faint', text: `… and ${attributes.length - MAX_ATTRIBUTES} more` }));
  }
  return section;
}
