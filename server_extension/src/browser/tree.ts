/**
 * The tree as people see and operate it: rows of one height, of which only those in view have elements. Keys are
 * those of the ARIA tree pattern; the focus stays on the tree, which names the active row.
 */

import { plainText, shownPath } from '../text';
import { icon, make } from './dom';
import { formatBytes, formatDtype, formatFraction, formatShape, itemNbytes, product, shortDtype } from './format';
import type { Row, TreeModel, TreeNode } from './model';
import { canOpen, isArea } from './model';
import { isOnline } from './service';

/** What areas are for. */
export const AREAS: { [root: string]: string } = {
  '@personal': 'your own files on this server',
  '@shared': 'files of all users of this server',
  '@public': 'files of this server that everybody may read'
};

const ROW_PX = 24;
const OVERSCAN = 8;
const INDENT_PX = 14;
const TYPEAHEAD_MS = 700;
const FLASH_MS = 2500;

export interface TreeEvents {
  /** Another node is the selected one. */
  onSelect(node: TreeNode): void;
  /** Enter, or a double click, on a node. */
  onActivate(node: TreeNode): void;
  /** A drag of a node begins: the text that is to be dropped. */
  dragText(node: TreeNode): string | null;
  /** A menu is asked for at a place of the page. */
  onMenu?(node: TreeNode, x: number, y: number): void;
  /** Files are dropped on a node; absent where nothing can be uploaded. */
  onDrop?(node: TreeNode, files: FileList): void;
  canDrop?(node: TreeNode): boolean;
}

let serial = 0;

export class TreeView {
  readonly element: HTMLElement;
  /** Part of each root that is kept, by name. */
  keptParts = new Map<string, number>();
  /** Addresses of which something is kept. */
  keptAddresses = new Set<string>();
  private readonly canvas: HTMLElement;
  private readonly prefix = `c2b-row-${++serial}-`;
  private active: TreeNode | null = null;
  private isPointed = false;
  /** Is the selected row to stay in view? Until somebody scrolls. */
  private isHeld = false;
  private drawn = new Map<string, { element: HTMLElement; signature: string }>();
  private typed = '';
  private typedAt = 0;
  private frame = 0;
  private readonly observer: ResizeObserver;

  constructor(
    private readonly model: TreeModel,
    private readonly events: TreeEvents
  ) {
    this.canvas = make('div', { class: 'c2b-tree-canvas', role: 'presentation' });
    this.element = make(
      'div',
      { class: 'c2b-tree', role: 'tree', tabindex: 0, 'aria-label': 'Remote datasets' },
      this.canvas
    );
    this.element.addEventListener('scroll', () => this.schedule());
    this.element.addEventListener('keydown', event => this.onKey(event));
    this.element.addEventListener('click', event => this.onClick(event));
    this.element.addEventListener('dblclick', event => {
      const row = this.rowAt(event);
      if (row?.type === 'node') {
        this.events.onActivate(row.node);
      }
    });
    this.element.addEventListener('contextmenu', event => {
      const row = this.rowAt(event);
      if (row?.type === 'node' && this.events.onMenu !== undefined) {
        event.preventDefault();
        event.stopPropagation();
        this.select(row.node);
        this.events.onMenu(row.node, event.clientX, event.clientY);
      }
    });
    this.element.addEventListener('dragstart', event => {
      const row = this.rowAt(event);
      const text = row?.type === 'node' ? this.events.dragText(row.node) : null;
      if (text === null || event.dataTransfer === null) {
        event.preventDefault();
        return;
      }
      event.dataTransfer.setData('text/plain', text);
      event.dataTransfer.effectAllowed = 'copy';
    });
    this.element.addEventListener('pointerdown', () => {
      this.isPointed = true;
      this.isHeld = false;
    });
    this.element.addEventListener('pointerup', () => (this.isPointed = false));
    this.element.addEventListener('focus', () => {
      if (this.active === null && !this.isPointed) {
        const first = this.model.rows()[0];
        if (first?.type === 'node') {
          this.select(first.node);
        }
      }
    });
    this.listenToDrops();
    this.element.addEventListener('wheel', () => (this.isHeld = false), { passive: true });
    this.observer = new ResizeObserver(() => {
      // The properties of what is selected take their room from the tree: it is not to be hidden by that.
      if (this.isHeld && this.active !== null) {
        this.bringIntoView(this.indexOf(this.active));
      }
      this.schedule();
    });
    this.observer.observe(this.element);
  }

  get selected(): TreeNode | null {
    return this.active;
  }

  dispose(): void {
    this.observer.disconnect();
    cancelAnimationFrame(this.frame);
  }

  /** Draw anew, with the next frame. */
  schedule(): void {
    if (this.frame === 0) {
      this.frame = requestAnimationFrame(() => {
        this.frame = 0;
        this.draw();
      });
    }
  }

  /** Draw the rows in view. */
  draw(): void {
    const rows = this.model.rows();
    this.canvas.style.height = `${rows.length * ROW_PX}px`;
    const first = Math.max(0, Math.floor(this.element.scrollTop / ROW_PX) - OVERSCAN);
    const count = Math.ceil((this.element.clientHeight || 600) / ROW_PX) + 2 * OVERSCAN;
    const drawn = new Map<string, { element: HTMLElement; signature: string }>();
    const last = Math.min(rows.length, first + count);
    for (let index = first; index < last; index++) {
      const row = rows[index];
      const key = `${row.type} ${row.node.level} ${row.node.address}`;
      const signature = this.signature(row);
      const before = this.drawn.get(key);
      // A row that looks as before keeps its element: or a click on it, or a drag of it, would be lost.
      const element = before?.signature === signature ? before.element : this.makeRow(row);
      drawn.set(key, { element, signature });
      element.style.top = `${index * ROW_PX}px`;
      element.dataset.index = String(index);
      element.id = `${this.prefix}${index}`;
      if (row.type === 'node') {
        element.setAttribute('aria-selected', String(row.node === this.active));
      }
      if (row.type === 'more' && !row.node.isLoading) {
        void this.model.load(row.node);
      }
    }
    this.drawn = drawn;
    this.place([...drawn.values()].map(({ element }) => element));
    const at = this.active === null ? -1 : this.indexOf(this.active);
    if (at >= first && at < last) {
      this.element.setAttribute('aria-activedescendant', `${this.prefix}${at}`);
    } else {
      this.element.removeAttribute('aria-activedescendant');
    }
  }

  /** Put rows into the canvas, touching none that is there already. */
  private place(elements: HTMLElement[]): void {
    const wanted = new Set<Element>(elements);
    for (const child of [...this.canvas.children]) {
      if (!wanted.has(child)) {
        child.remove();
      }
    }
    elements.forEach((element, index) => {
      const there = this.canvas.children[index];
      if (there !== element) {
        this.canvas.insertBefore(element, there ?? null);
      }
    });
  }

  /** What a row looks like, as a text. */
  private signature(row: Row): string {
    const { node } = row;
    if (row.type !== 'node') {
      return row.type === 'failure' ? `${row.failure.title} ${row.failure.cure}` : this.model.filter;
    }
    const siblings = node.parent === null ? this.model.roots : node.parent.children;
    return [
      node.isOpen,
      row.position,
      node.parent?.next == null ? siblings?.length : -1,
      node.entry?.version,
      node.entry?.attrs_tag,
      node.changedAt,
      isOnline(node.status),
      node.status?.followed,
      node.status?.since,
      this.keptParts.get(node.address),
      this.keptAddresses.has(node.address),
      node.name
    ].join('|');
  }

  private makeRow(row: Row): HTMLElement {
    const level = row.type === 'node' ? row.node.level : row.node.level + 1;
    const element = make('div', { class: `c2b-row c2b-row-${row.type}` });
    element.style.paddingInlineStart = `${4 + (level - 1) * INDENT_PX}px`;
    if (row.type !== 'node') {
      element.setAttribute('role', 'treeitem');
      element.setAttribute('aria-level', String(level));
      element.append(make('span', { class: 'c2b-note', ...noteOf(row, this.model.filter !== '') }));
      return element;
    }
    this.fillNode(element, row.node, row.position);
    return element;
  }

  private fillNode(element: HTMLElement, node: TreeNode, position: number): void {
    const siblings = node.parent === null ? this.model.roots : (node.parent.children ?? []);
    const hasMore = node.parent !== null && node.parent.next !== null;
    const set: { [name: string]: string } = {
      role: 'treeitem',
      'aria-level': String(node.level),
      'aria-setsize': hasMore ? '-1' : String(siblings.length),
      'aria-posinset': String(position),
      'aria-label': this.label(node),
      draggable: 'true',
      title: this.hint(node)
    };
    if (canOpen(node)) {
      set['aria-expanded'] = String(node.isOpen);
    }
    for (const [name, value] of Object.entries(set)) {
      element.setAttribute(name, plainText(value));
    }
    const age = node.changedAt === undefined ? Infinity : performance.now() - node.changedAt;
    if (age < FLASH_MS) {
      element.classList.add('c2b-flash');
      element.style.animationDelay = `${-age}ms`;
    }
    element.append(
      icon('open', `c2b-twisty${canOpen(node) ? '' : ' c2b-twisty-none'}${node.isOpen ? ' c2b-twisty-open' : ''}`),
      icon(drawingOf(node), `c2b-kind`)
    );
    if (node.kind === 'root') {
      element.classList.add('c2b-row-root');
      element.append(make('span', { class: 'c2b-name', text: shownName(node) }), this.rootState(node));
      return;
    }
    element.append(make('span', { class: 'c2b-name', text: shownName(node) }));
    // The space is not drawn: it parts the words for who hears or copies them.
    element.append(' ', make('span', { class: 'c2b-facts', text: factsOf(node) }));
    if (this.keptAddresses.has(node.address)) {
      element.append(make('span', { class: 'c2b-kept', title: 'Some of it is kept on this server' }));
    }
  }

  private rootState(node: TreeNode): HTMLElement {
    const online = isOnline(node.status);
    const state = make('span', { class: 'c2b-root-state' });
    const part = this.keptParts.get(node.root);
    if (node.status?.followed === true && part !== undefined) {
      state.append(make('span', { class: 'c2b-facts', text: formatFraction(part), title: 'Part of it that is kept on this server' }));
    }
    if (isArea(node.root)) {
      return state;
    }
    if (node.status?.followed === true) {
      state.append(icon('follow', 'c2b-followed'));
    }
    state.append(make('span', { class: `c2b-dot ${online ? 'c2b-online' : 'c2b-offline'}` }));
    return state;
  }

  /** What a screen reader says of a row. */
  private label(node: TreeNode): string {
    if (node.kind === 'root' && isArea(node.root)) {
      return `${shownName(node)}, area`;
    }
    if (node.kind === 'root') {
      const part = this.keptParts.get(node.root);
      return [
        shownName(node),
        isOnline(node.status) ? 'online' : 'offline',
        node.status?.followed === true ? 'following' : 'not followed',
        part === undefined ? '' : `${formatFraction(part)} kept`
      ]
        .filter(Boolean)
        .join(', ');
    }
    const facts = factsOf(node);
    return `${shownName(node)}${facts ? `, ${facts}` : ''}`;
  }

  private hint(node: TreeNode): string {
    if (node.kind === 'root' && isArea(node.root)) {
      return `${shownName(node)}: ${AREAS[node.root] ?? 'an area of this server'}`;
    }
    if (node.kind === 'root') {
      const online = isOnline(node.status);
      const since = node.status?.since ? ` since ${new Date(node.status.since).toLocaleString()}` : '';
      const why = node.status?.reason ? ` (${node.status.reason})` : '';
      return `${shownName(node)}: ${online ? 'online' : `offline${since}${why}`}, ${node.status?.followed === true ? 'following' : 'not followed'}`;
    }
    const entry = node.entry;
    const geometry = entry?.geometry;
    if (entry?.kind === 'array' && geometry !== undefined) {
      const nbytes = product(geometry.shape) * itemNbytes(geometry.dtype);
      return `${shownPath(node.path)}\n${formatShape(geometry.shape)} ${formatDtype(geometry.dtype)}${nbytes ? `, ${formatBytes(nbytes)}` : ''}`;
    }
    return entry?.reason ? `${shownPath(node.path)}\n${entry.reason}` : shownPath(node.path);
  }

  // Operating it

  private indexOf(node: TreeNode): number {
    return this.model.rows().findIndex(row => row.type === 'node' && row.node === node);
  }

  private rowAt(event: Event): Row | null {
    const element = (event.target as Element).closest?.('[data-index]');
    const index = element === null || element === undefined ? NaN : Number((element as HTMLElement).dataset.index);
    return this.model.rows()[index] ?? null;
  }

  private bringIntoView(at: number): void {
    const top = at * ROW_PX;
    if (at < 0) {
      return;
    }
    // It may be asked for before the rows have got their place.
    this.canvas.style.height = `${this.model.rows().length * ROW_PX}px`;
    if (top < this.element.scrollTop) {
      this.element.scrollTop = top;
    } else if (top + ROW_PX > this.element.scrollTop + this.element.clientHeight) {
      this.element.scrollTop = top + ROW_PX - this.element.clientHeight;
    }
  }

  /** Make a node the selected one, and bring it into view. */
  select(node: TreeNode, scroll = true): void {
    const isNew = node !== this.active;
    this.active = node;
    this.isHeld = scroll;
    if (scroll) {
      this.bringIntoView(this.indexOf(node));
    }
    this.draw();
    if (isNew) {
      this.events.onSelect(node);
    }
  }

  /** Forget the selected node if it is gone. */
  checkSelected(): void {
    if (this.active !== null && this.indexOf(this.active) < 0) {
      const address = this.active.address;
      const same = this.model.rows().find(row => row.type === 'node' && row.node.address === address);
      this.active = same?.type === 'node' ? same.node : null;
    }
  }

  private onClick(event: MouseEvent): void {
    const row = this.rowAt(event);
    if (row === null) {
      return;
    }
    if (row.type !== 'node') {
      if (row.type === 'failure') {
        void this.model.load(row.node);
        this.schedule();
      }
      return;
    }
    this.select(row.node, false);
    if (canOpen(row.node) && (event.target as Element).closest('.c2b-twisty, .c2b-kind, .c2b-name') !== null) {
      void this.model.setOpen(row.node, !row.node.isOpen);
    }
  }

  private onKey(event: KeyboardEvent): void {
    if (event.altKey || event.ctrlKey || event.metaKey) {
      return;
    }
    if (event.key.length !== 1 && event.key !== 'Shift') {
      this.typed = '';
    }
    const rows = this.model.rows();
    const at = this.active === null ? -1 : this.indexOf(this.active);
    const page = Math.max(1, Math.floor(this.element.clientHeight / ROW_PX) - 1);
    switch (event.key) {
      case 'ArrowDown':
        this.step(at, 1);
        break;
      case 'ArrowUp':
        this.step(at < 0 ? rows.length : at, -1);
        break;
      case 'Home':
        this.step(-1, 1);
        break;
      case 'End':
        this.step(rows.length, -1);
        break;
      case 'PageDown':
        this.step(Math.min(at + page, rows.length) - 1, 1, rows.length);
        break;
      case 'PageUp':
        this.step(Math.max(at - page, -1) + 1, -1, -1);
        break;
      case 'ArrowRight':
        this.onRight(at);
        break;
      case 'ArrowLeft':
        this.onLeft();
        break;
      case 'Enter':
        if (this.active !== null) {
          this.events.onActivate(this.active);
        }
        break;
      case ' ':
        if (this.active !== null && canOpen(this.active)) {
          void this.model.setOpen(this.active, !this.active.isOpen);
        }
        break;
      case 'ContextMenu':
        this.menuByKey(at);
        break;
      case 'F10':
        if (!event.shiftKey) {
          return;
        }
        this.menuByKey(at);
        break;
      default:
        if (event.key.length !== 1) {
          return;
        }
        this.typeahead(event.key, at);
    }
    event.preventDefault();
    event.stopPropagation(); // or Lab's shortcuts take single keys
  }

  private menuByKey(at: number): void {
    if (this.active !== null && this.events.onMenu !== undefined) {
      const box = this.element.getBoundingClientRect();
      this.events.onMenu(this.active, box.left + 40, box.top + (at + 1) * ROW_PX - this.element.scrollTop);
    }
  }

  /** Select the next node from an index on, in a direction; or, where there is none, the nearest one back. */
  private step(from: number, by: 1 | -1, limit?: number): void {
    const rows = this.model.rows();
    let at = from + by;
    while (at >= 0 && at < rows.length && rows[at].type !== 'node') {
      at += by;
    }
    if (limit !== undefined && (at < 0 || at >= rows.length)) {
      this.step(limit, by === 1 ? -1 : 1);
      return;
    }
    const row = rows[at];
    if (row?.type === 'node') {
      this.select(row.node);
    }
  }

  private onRight(at: number): void {
    const node = this.active;
    if (node === null || !canOpen(node)) {
      return;
    }
    if (!node.isOpen) {
      void this.model.setOpen(node, true);
    } else {
      this.step(at, 1);
    }
  }

  private onLeft(): void {
    const node = this.active;
    if (node === null) {
      return;
    }
    if (canOpen(node) && node.isOpen) {
      void this.model.setOpen(node, false);
    } else if (node.parent !== null) {
      this.select(node.parent);
    }
  }

  private typeahead(key: string, at: number): void {
    const now = performance.now();
    this.typed = now - this.typedAt < TYPEAHEAD_MS ? this.typed + key : key;
    this.typedAt = now;
    const wanted = this.typed.toLocaleLowerCase();
    const rows = this.model.rows();
    const start = this.typed.length > 1 ? at : at + 1;
    for (let k = 0; k < rows.length; k++) {
      const row = rows[(start + k + rows.length) % rows.length];
      if (row.type === 'node' && row.node.name.toLocaleLowerCase().startsWith(wanted)) {
        this.select(row.node);
        return;
      }
    }
  }

  private listenToDrops(): void {
    const over = (event: DragEvent): TreeNode | null => {
      const row = this.rowAt(event);
      const isFiles = event.dataTransfer?.types.includes('Files') === true;
      const node = row?.type === 'node' ? row.node : null;
      return isFiles && node !== null && this.events.canDrop?.(node) === true ? node : null;
    };
    const mark = (row: Element | null): void => {
      this.canvas.querySelector('.c2b-drop')?.classList.remove('c2b-drop');
      row?.classList.add('c2b-drop');
    };
    this.element.addEventListener('dragover', event => {
      const isGoal = over(event) !== null;
      mark(isGoal ? (event.target as Element).closest('[data-index]') : null);
      if (isGoal) {
        event.preventDefault();
      }
    });
    this.element.addEventListener('dragleave', () => mark(null));
    this.element.addEventListener('drop', event => {
      const node = over(event);
      mark(null);
      if (node !== null && event.dataTransfer !== null) {
        event.preventDefault();
        this.events.onDrop?.(node, event.dataTransfer.files);
      }
    });
  }
}

function noteOf(row: Exclude<Row, { type: 'node' }>, isFiltered: boolean): { text: string; title?: string } {
  switch (row.type) {
    case 'more':
    case 'loading':
      return { text: 'Loading…' };
    case 'empty':
      return { text: isFiltered ? 'No match' : 'Empty' };
    case 'failure':
      return { text: `${row.failure.title} Try again`, title: row.failure.cure };
  }
}

function drawingOf(node: TreeNode): string {
  if (node.kind === 'root' && isArea(node.root)) {
    return 'area';
  }
  return node.kind in { root: 1, group: 1, array: 1, file: 1, link: 1 } ? node.kind : 'unsupported';
}

function shownName(node: TreeNode): string {
  return shownPath(node.kind === 'array' ? node.name.replace(/\.b2nd$/, '') : node.name);
}

function factsOf(node: TreeNode): string {
  const entry = node.entry;
  const geometry = entry?.geometry;
  if (node.kind === 'array' && geometry !== undefined) {
    return `${formatShape(geometry.shape).replace(/ /g, '')} ${shortDtype(geometry.dtype)}`;
  }
  if (node.kind === 'file' && geometry !== undefined) {
    return formatBytes(product(geometry.shape));
  }
  return node.kind === 'group' && entry?.cbytes !== undefined ? formatBytes(entry.cbytes) : '';
}
