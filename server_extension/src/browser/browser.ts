/**
 * The browser of remote datasets: roots, tree, filter, properties. Framework-free: it needs an element, a transport
 * and a host that shows what is opened; JupyterLab's panel and the stand-alone page are such hosts.
 */

import { shown, shownPath } from '../text';
import type { Transport } from '../transport';
import { Areas } from './areas';
import type { CodeVariant } from './code';
import { makeCode } from './code';
import type { Actions } from './details';
import { Details } from './details';
import { button, debounced, make } from './dom';
import { explain, isAbort } from './failures';
import type { TreeNode } from './model';
import { canOpen, TreeModel } from './model';
import type { RootStatus, Summary } from './service';
import { downloadName, downloadPath, Service } from './service';
import { Tasks } from './tasks';
import { TreeView } from './tree';

export interface BrowserHost {
  /** Show a dataset (`ROOT/PATH`) in the viewer. */
  open?(address: string): void;
  /** Put code where the user works; the answer is told to the user. Without it code is copied. */
  insertCode?(code: string): Promise<string> | string;
  /** Show the page about the running state. */
  showState?(): void;
  /** Told what the cache holds and saved, whenever the browser has asked for it. */
  summaryTold?(summary: Summary): void;
}

export interface BrowserOptions {
  el: HTMLElement;
  transport: Transport;
  host?: BrowserHost;
}

export interface Browser {
  /** Ask for everything again. */
  refresh(): Promise<void>;
  /** Ask for nothing while it cannot be seen. */
  setVisible(isVisible: boolean): void;
  /** Select and open what is at an address, as far as it is there. */
  reveal(address: string): Promise<void>;
  setCodeVariant(variant: CodeVariant): void;
  focus(): void;
  dispose(): void;
}

/** How often roots are asked for while nobody tells them, or the server does not answer. */
const ROOTS_EVERY_MS = 3000;
/** How often it is asked how much of them is kept. */
const SUMMARY_EVERY_MS = 5000;
/** They are told at least every 20 seconds: who hears nothing for so long asks. */
const SILENCE_MS = 45_000;
const FILTER_MS = 250;
const MAX_IN_MEMORY = 1 << 29;
const FILTER_HELP =
  'Words that all have to hold: a part of the path, dtype:float32, kind:array, attr:units, dim:time, ndim>2, nbytes>=1000000.';

/** Put a browser into an element. */
export function mountBrowser(options: BrowserOptions): Browser {
  return new BrowserPanel(options);
}

class BrowserPanel implements Browser {
  private readonly service: Service;
  private readonly host: BrowserHost;
  private readonly model: TreeModel;
  private readonly tree: TreeView;
  private readonly details: Details;
  private readonly areas: Areas;
  private readonly tasks = new Tasks();
  private readonly search: HTMLInputElement;
  private readonly clearSearch: HTMLButtonElement;
  private readonly notice = make('div', { class: 'c2b-notice', hidden: true });
  private readonly body: HTMLElement;
  private readonly rootElement: HTMLElement;
  private isVisible = false;
  private loading: Promise<void> | null = null;
  private timer = 0;
  private stopListening: (() => void) | null = null;
  private toldAt = -Infinity;
  private usage = -1;
  private knowsAreas = false;
  private isDisposed = false;

  constructor(options: BrowserOptions) {
    this.service = new Service(options.transport);
    this.host = options.host ?? {};
    this.model = new TreeModel(this.service);
    this.tree = new TreeView(this.model, {
      onSelect: node => this.details.show(node),
      onActivate: node => this.activate(node),
      dragText: node => (node.kind === 'link' || node.kind === 'unsupported' ? null : this.codeOf(node, this.details.variant)),
      canDrop: node => this.areas.canTake(node),
      onDrop: (node, files) => void this.areas.upload(node, [...files])
    });
    this.areas = new Areas(options.transport, this.tasks, root => void this.rootChanged(root));
    this.details = new Details(this.service, this.actions(), root => this.isFollowed(root));
    this.model.onChange = () => {
      this.tree.checkSelected();
      this.tree.schedule();
      if (this.tree.selected === null && this.details.shown !== null) {
        this.details.show(null);
      }
    };
    this.model.onNodeChange = node => {
      if (node.address === this.details.shown?.address) {
        this.details.show(node);
      }
    };
    this.search = make('input', {
      type: 'search',
      class: 'c2b-search',
      placeholder: 'Filter: temp dtype:float32',
      'aria-label': 'Filter datasets',
      'aria-describedby': 'c2b-filter-help',
      autocomplete: 'off',
      spellcheck: 'false'
    });
    this.clearSearch = button('Clear the filter', 'close', () => this.setFilter(''), { quiet: true, class: 'c2b-small c2b-clear' });
    this.clearSearch.hidden = true;
    this.body = make('div', { class: 'c2b-body' }, this.tree.element, splitter(), this.details.element);
    this.rootElement = make('div', { class: 'c2b' }, this.header(), this.searchBox(), this.notice, this.body, this.tasks.element);
    options.el.append(this.rootElement);
    document.addEventListener('visibilitychange', this.onPageVisible);
  }

  private header(): HTMLElement {
    const buttons = make('span', { class: 'c2b-header-buttons' });
    if (this.host.showState !== undefined) {
      buttons.append(button('Running state: cache and connections', 'state', () => this.host.showState?.(), { quiet: true }));
    }
    buttons.append(button('Refresh', 'refresh', () => void this.refresh(), { quiet: true }));
    return make('div', { class: 'c2b-header' }, make('h2', { text: 'Remote datasets' }), buttons);
  }

  private searchBox(): HTMLElement {
    const apply = debounced(FILTER_MS, () => this.model.setFilter(this.search.value.trim()));
    this.search.addEventListener('input', () => {
      this.clearSearch.hidden = this.search.value === '';
      apply();
    });
    this.search.addEventListener('keydown', event => {
      if (event.key === 'Escape' && this.search.value !== '') {
        event.stopPropagation();
        this.setFilter('');
      } else if (event.key === 'ArrowDown') {
        event.preventDefault();
        this.tree.element.focus();
      }
    });
    const help = make('p', { class: 'c2b-search-help', id: 'c2b-filter-help', text: FILTER_HELP });
    return make('div', { class: 'c2b-search-box', role: 'search' }, this.search, this.clearSearch, help);
  }

  private setFilter(text: string): void {
    this.search.value = text;
    this.clearSearch.hidden = text === '';
    this.model.setFilter(text);
  }

  // Life

  setVisible(isVisible: boolean): void {
    this.isVisible = isVisible;
    window.clearTimeout(this.timer);
    if (isVisible) {
      this.tree.schedule();
      void this.poll();
    } else {
      this.hearNothing();
    }
  }

  /** Hear which roots there are, once they could be asked for; while they cannot, asking says why. */
  private hear(): void {
    if (this.isVisible && !this.isDisposed) {
      this.stopListening ??= this.service.rootsTold(roots => {
        this.toldAt = performance.now();
        void this.takeRoots(roots);
      });
    }
  }

  private hearNothing(): void {
    this.stopListening?.();
    this.stopListening = null;
    this.toldAt = -Infinity;
  }

  /** Are roots told as they come and go? */
  private get isTold(): boolean {
    return performance.now() - this.toldAt < SILENCE_MS;
  }

  private readonly onPageVisible = (): void => {
    if (this.isVisible && document.visibilityState === 'visible') {
      this.setVisible(true);
    }
  };

  private async poll(): Promise<void> {
    window.clearTimeout(this.timer);
    if (!this.isVisible || this.isDisposed || document.visibilityState === 'hidden') {
      return;
    }
    if (!this.isTold || !(await this.loadSummary())) {
      await this.loadRoots();
    }
    if (this.isVisible && !this.isDisposed) {
      window.clearTimeout(this.timer);
      this.timer = window.setTimeout(() => void this.poll(), this.isTold ? SUMMARY_EVERY_MS : ROOTS_EVERY_MS);
    }
  }

  /** Whoever comes while the roots are asked for waits for the same answer. */
  private loadRoots(): Promise<void> {
    this.loading ??= this.askForRoots().finally(() => (this.loading = null));
    return this.loading;
  }

  private async askForRoots(): Promise<void> {
    try {
      await this.takeRoots(await this.service.roots());
      this.hear();
      await this.loadSummary();
    } catch (error) {
      if (!isAbort(error)) {
        this.hearNothing();
        this.showFailure(error);
      }
    }
  }

  private async takeRoots(roots: RootStatus[]): Promise<void> {
    this.drawRoots(roots);
    if (!this.knowsAreas) {
      this.knowsAreas = true;
      if (await this.areas.load(roots.map(root => root.name))) {
        this.details.show(this.details.shown);
      }
    }
  }

  private drawRoots(roots: RootStatus[]): void {
    const wasFailing = !this.notice.hidden && this.body.hidden;
    this.model.setRoots(roots);
    if (roots.length === 0) {
      this.showNotice(
        'No roots are known yet.',
        'A root appears here as soon as its publisher runs: cat2pub NAME DIRECTORY. Jupyter has to be told of the broker: jupyter lab --SubscriberApp.broker=HOST:PORT, or of publishers: --SubscriberApp.publishers.',
        'Look again'
      );
      return;
    }
    this.notice.hidden = true;
    this.body.hidden = false;
    if (wasFailing) {
      void this.model.reload();
    }
    const shown = this.details.shown;
    if (shown?.kind === 'root' && shown.status !== this.shownStatus) {
      this.redrawRoot(shown);
    }
  }

  private shownStatus: RootStatus | undefined;
  private shownText = '';

  private redrawRoot(node: TreeNode): void {
    const text = JSON.stringify({ ...node.status, seq: 0 });
    this.shownStatus = node.status;
    if (text !== this.shownText) {
      this.shownText = text;
      this.details.show(node);
    }
  }

  /** Marks of what is kept; false when they cannot be had, which asking for the roots explains. */
  private async loadSummary(): Promise<boolean> {
    let summary: Summary;
    try {
      summary = await this.service.summary();
    } catch {
      this.tree.keptParts.clear();
      return false;
    }
    this.host.summaryTold?.(summary);
    this.tree.keptParts = new Map(
      summary.roots.filter(use => use.total_nbytes > 0).map(use => [use.root, use.kept_nbytes / use.total_nbytes])
    );
    if (summary.usage_nbytes !== this.usage) {
      this.usage = summary.usage_nbytes;
      this.details.lookAgain();
      const opened = this.model.roots.filter(root => root.isOpen).map(root => root.root);
      const kept = await Promise.all(opened.map(root => this.service.cache(root).catch(() => null)));
      this.tree.keptAddresses = new Set(kept.flatMap(status => (status?.datasets ?? []).map(dataset => dataset.path)));
    }
    this.tree.schedule();
    return true;
  }

  private showFailure(error: unknown): void {
    const { title, cure } = explain(error);
    this.showNotice(title, cure, 'Try again', true);
  }

  private showNotice(title: string, cure: string, retry: string, isFailure = false): void {
    const text = `${title}\n${cure}`;
    this.body.hidden = true;
    this.notice.hidden = false;
    if (this.notice.dataset.text === text && this.notice.childElementCount > 0) {
      return; // or a screen reader would say it again with each attempt
    }
    this.notice.dataset.text = text;
    this.notice.setAttribute('role', isFailure ? 'alert' : 'status');
    this.notice.replaceChildren(
      make('strong', { text: title }),
      make('p', { text: cure }),
      button(retry, 'refresh', () => void this.refresh())
    );
  }

  async refresh(): Promise<void> {
    this.usage = -1;
    this.knowsAreas = false;
    await this.loading; // what was asked before may have another answer now
    await this.loadRoots();
    if (this.notice.hidden) {
      await this.model.reload();
    }
  }

  async reveal(address: string): Promise<void> {
    const [name, ...parts] = address.split('/');
    let node = this.model.roots.find(root => root.root === name);
    if (node === undefined) {
      await this.loadRoots();
      node = this.model.roots.find(root => root.root === name);
    }
    if (node === undefined) {
      return;
    }
    this.setFilter('');
    for (let depth = 0; depth < parts.length; depth++) {
      if (node.children === null) {
        node.isOpen = true;
        await this.model.load(node);
      }
      await this.model.setOpen(node, true);
      const path = parts.slice(0, depth + 1).join('/');
      const next: TreeNode | undefined = node.children?.find(child => child.path === path || child.path === `${path}.b2nd`);
      if (next === undefined) {
        break;
      }
      node = next;
    }
    this.tree.select(node);
  }

  setCodeVariant(variant: CodeVariant): void {
    this.details.variant = variant;
    this.details.show(this.details.shown);
  }

  focus(): void {
    (this.body.hidden ? this.notice.querySelector('button') : this.tree.element)?.focus();
  }

  dispose(): void {
    this.isDisposed = true;
    window.clearTimeout(this.timer);
    this.hearNothing();
    document.removeEventListener('visibilitychange', this.onPageVisible);
    this.model.dispose();
    this.tree.dispose();
    this.details.show(null);
    this.rootElement.remove();
  }

  // What people do

  private isFollowed(root: string): boolean {
    return this.model.roots.find(node => node.root === root)?.status?.followed === true;
  }

  private activate(node: TreeNode): void {
    if (node.kind === 'array' || node.kind === 'file') {
      this.host.open?.(node.address);
    } else if (canOpen(node)) {
      void this.model.setOpen(node, !node.isOpen);
    }
  }

  private codeOf(node: TreeNode, variant: CodeVariant): string {
    const { shape, dtype } = node.entry?.geometry ?? {};
    const kind = node.kind === 'root' ? 'group' : node.kind;
    return makeCode({ address: node.address, kind, shape, dtype }, node.kind === 'root' ? 'array' : variant);
  }

  private actions(): Actions {
    return {
      codeLabel: this.host.insertCode === undefined ? 'Copy code' : 'Insert code',
      view: this.host.open === undefined ? undefined : node => this.host.open?.(node.address),
      code: (node, variant) => void this.giveCode(this.codeOf(node, variant)),
      download: node => void this.download(node),
      prefetch: node => void this.prefetch(node),
      pin: (node, pinned) => void this.pin(node, pinned),
      clear: node => void this.clear(node),
      follow: (node, followed) => void this.follow(node, followed),
      listAgain: node => void this.model.load(node),
      refuse: why => this.tasks.say(why),
      extra: node => this.areas.buttons(node, () => this.details.element.querySelector('.c2b-place'))
    };
  }

  private async giveCode(code: string): Promise<void> {
    try {
      if (this.host.insertCode !== undefined) {
        this.tasks.say(await this.host.insertCode(code));
      } else {
        await navigator.clipboard.writeText(code);
        this.tasks.say('Copied: paste it into a notebook.');
      }
    } catch {
      this.tasks.say(code, true);
    }
  }

  private async follow(node: TreeNode, followed: boolean): Promise<void> {
    this.tasks.say(followed ? `Following ${shown(node.root)}…` : `Unfollowing ${shown(node.root)}…`);
    try {
      await this.service.follow(node.root, followed);
      this.tasks.say(followed ? `Following ${shown(node.root)}.` : `${shown(node.root)} is not followed any more.`);
    } catch (error) {
      this.tasks.fail(followed ? `Follow ${shown(node.root)}` : `Unfollow ${shown(node.root)}`, error);
    }
    this.shownText = '';
    await this.loadRoots();
    if (node.isOpen) {
      await this.model.reload(node);
    }
  }

  private async download(node: TreeNode): Promise<void> {
    const entry = node.entry;
    if (entry === undefined) {
      return;
    }
    const name = downloadName(entry);
    const direct = this.service.transport.moduleUrl?.(downloadPath(node.address, entry));
    if ((entry.cbytes ?? 0) > MAX_IN_MEMORY && direct !== undefined) {
      save(direct, name); // the browser's own downloads go straight to the disk
      this.tasks.say(`${shown(name)}: see the downloads of your browser.`);
      return;
    }
    await this.tasks.run(`Download ${shown(name)}`, async (tell, signal) => {
      const bytes = await this.service.download(node.address, entry, { signal, onProgress: tell });
      const url = URL.createObjectURL(new Blob([bytes], { type: 'application/octet-stream' }));
      save(url, name);
      window.setTimeout(() => URL.revokeObjectURL(url), 60_000);
      return `${shown(name)} is downloaded.`;
    });
  }

  private async prefetch(node: TreeNode): Promise<void> {
    await this.tasks.run(`Prefetch ${shownPath(node.name)}`, async (tell, signal) => {
      await this.service.prefetch(
        node.address,
        line => tell(line.cbytes ? (line.done_cbytes ?? 0) / line.cbytes : NaN),
        signal
      );
      return `${shownPath(node.name)} is kept here: it can be read offline.`;
    });
    await this.cacheChanged(node);
  }

  private async pin(node: TreeNode, pinned: boolean): Promise<void> {
    try {
      await this.service.pin(node.address, pinned);
      this.tasks.say(pinned ? `${shownPath(node.name)} is pinned: what is kept of it stays.` : `${shownPath(node.name)} is not pinned any more.`);
    } catch (error) {
      this.tasks.fail(pinned ? 'Pin' : 'Unpin', error);
    }
    await this.cacheChanged(node);
  }

  private async clear(node: TreeNode): Promise<void> {
    try {
      await this.service.clear(node.address);
    } catch (error) {
      this.tasks.fail('Clear', error);
    }
    await this.cacheChanged(node);
  }

  private async rootChanged(name: string): Promise<void> {
    const root = this.model.roots.find(node => node.root === name);
    if (root !== undefined) {
      await this.model.reload(root);
    }
  }

  private async cacheChanged(node: TreeNode): Promise<void> {
    if (this.details.shown?.address === node.address) {
      this.details.show(node);
    }
    await this.loadSummary();
  }
}

function save(url: string, name: string): void {
  const anchor = make('a', { href: url, download: name, hidden: true });
  document.body.append(anchor);
  anchor.click();
  anchor.remove();
}

const LEAST_PX = 60;

/** Between tree and properties: dragged, or moved by arrow keys. */
function splitter(): HTMLElement {
  const bar = make('div', {
    class: 'c2b-splitter',
    role: 'separator',
    tabindex: 0,
    'aria-orientation': 'horizontal',
    'aria-label': 'Height of the properties',
    'aria-valuemin': LEAST_PX,
    'aria-valuenow': LEAST_PX
  });
  const resize = (height: number): void => {
    const details = bar.nextElementSibling as HTMLElement;
    const most = (bar.parentElement?.clientHeight ?? 600) - LEAST_PX;
    details.style.flexBasis = `${Math.max(LEAST_PX, Math.min(most, height))}px`;
    tell();
  };
  const tell = (): void => {
    bar.setAttribute('aria-valuemax', String((bar.parentElement?.clientHeight ?? 600) - LEAST_PX));
    bar.setAttribute('aria-valuenow', String(now()));
  };
  bar.addEventListener('focus', tell);
  const now = (): number => (bar.nextElementSibling as HTMLElement).offsetHeight;
  bar.addEventListener('pointerdown', event => {
    const start = event.clientY;
    const before = now();
    bar.setPointerCapture(event.pointerId);
    const move = (e: PointerEvent): void => resize(before + start - e.clientY);
    bar.addEventListener('pointermove', move);
    bar.addEventListener('pointerup', () => bar.removeEventListener('pointermove', move), { once: true });
  });
  bar.addEventListener('keydown', event => {
    if (event.key === 'ArrowUp' || event.key === 'ArrowDown') {
      event.preventDefault();
      event.stopPropagation();
      resize(now() + (event.key === 'ArrowUp' ? 24 : -24));
    }
  });
  return bar;
}
