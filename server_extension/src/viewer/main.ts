// The viewer: one ES module for JupyterLab, the page and notebooks. It shows one address at a time: arrays and
// groups by H5Web, files by a preview, whatever a display plugin offers by that. It has no tree of roots.
import h5webStyle from '@h5web/app/styles.css?inline';
import { sentence } from '../browser/failures';
import { plainText, shown } from '../text';
import { CommTransport, Transport, WidgetModel } from '../transport';
import { DisplayInfo, displaysOf, showDisplay } from './displays';
import { showH5Web } from './h5web';
import { downloadPath, previewKind, showPreview } from './preview';
import { Provider } from './provider';
import { addressOf, Entry, nameOf, rootOf, Service } from './service';
import ownStyle from './viewer.css?inline';

export type Theme = 'light' | 'dark';

export interface ViewerOptions {
  el: HTMLElement;
  transport: Transport;
  /** Address of what is shown at first, `ROOT/PATH`; empty: nothing yet. */
  path?: string;
  theme?: Theme;
  /** Told the address and the entry of what has been opened. */
  onOpen?: (path: string, entry: Entry) => void;
}

export interface ViewerHandle {
  /** Shows another address; resolves when its entry is there (values may still be coming), or has failed. */
  open(path: string): Promise<void>;
  setTheme(theme: Theme): void;
  /** Takes everything away. */
  dispose(): void;
}

/** Browsers keep about 16 WebGL contexts: of more viewers than this, hidden ones let theirs go. */
const MAX_LIVE = 6;
/** A plot whose context the browser took is drawn again by itself once in so long. */
const REDRAW_MS = 10_000;

interface Live {
  readonly isHidden: boolean;
  release(): void;
}

/** Those of the whole page: JupyterLab's tabs and notebooks each load this module. */
const LIVE = Symbol.for('caterva2-jupyter:live-viewers');
const live = ((globalThis as { [LIVE]?: Set<Live> })[LIVE] ??= new Set<Live>());

class Viewer implements ViewerHandle, Live {
  private readonly service: Service;
  private readonly bar = document.createElement('div');
  private readonly body = document.createElement('div');
  private readonly status = document.createElement('div');
  private readonly observer: IntersectionObserver;
  private controller = new AbortController();
  private takeAway: (() => void) | null = null;
  private unlisten: (() => void) | null = null;
  private address = '';
  private entry: Entry | null = null;
  private displays: DisplayInfo[] = [];
  private chosen = '';
  private isVisible = true;
  private redrawnAt = -REDRAW_MS;
  private theme: Theme;

  constructor(private readonly options: ViewerOptions) {
    this.service = new Service(options.transport);
    this.theme = options.theme ?? 'light';
    const el = options.el;
    el.classList.add('c2v-viewer');
    el.dataset.theme = this.theme;
    this.bar.className = 'c2v-bar';
    this.bar.setAttribute('role', 'tablist');
    this.bar.setAttribute('aria-label', 'Display');
    this.bar.hidden = true;
    this.body.className = 'c2v-body';
    this.status.className = 'c2v-status';
    this.status.setAttribute('role', 'status');
    this.status.hidden = true;
    addStyle(el);
    el.replaceChildren(this.bar, this.status, this.body);
    this.observer = new IntersectionObserver(entries => this.setVisible(entries[entries.length - 1].isIntersecting));
    this.observer.observe(el);
    this.body.addEventListener('webglcontextlost', () => this.redraw(), true);
  }

  get isHidden(): boolean {
    return !this.isVisible;
  }

  /** Let go of what is drawn; it is drawn again when it is seen. */
  release(): void {
    this.unmount();
  }

  /** Others in the page took so many contexts that this one's is gone, and its plot empty. */
  private redraw(): void {
    if (this.isHidden) {
      this.release();
    } else if (performance.now() - this.redrawnAt > REDRAW_MS) {
      this.redrawnAt = performance.now();
      void this.show();
    } else {
      this.unmount();
      this.say('Too many plots are drawn at once for this browser: close some.');
      this.offer('Draw again', () => void this.show());
    }
  }

  async open(address: string): Promise<void> {
    this.clear();
    const { signal } = this.controller;
    this.address = address;
    this.chosen = '';
    this.displays = [];
    this.drawBar();
    this.say('Loading…');
    try {
      const entry = await this.service.entry(address, signal);
      if (signal.aborted) {
        return;
      }
      this.entry = entry;
      this.options.onOpen?.(addressOf(entry.root ?? rootOf(address), entry.path), entry);
      await this.show();
      this.listen(entry);
      if (entry.geometry) {
        this.displays = await displaysOf(this.service.transport, address, signal).catch(() => []);
        if (!signal.aborted) {
          this.drawBar();
        }
      }
    } catch (error) {
      this.fail(error, signal);
    }
  }

  setTheme(theme: Theme): void {
    const isOther = this.theme !== theme;
    this.theme = theme;
    this.options.el.dataset.theme = theme;
    // H5Web follows by its style; what was drawn in a theme's colours is drawn again.
    if (isOther && this.entry && (this.chosen || this.isPreview())) {
      void this.show();
    }
  }

  dispose(): void {
    this.observer.disconnect();
    this.clear();
    this.options.el.replaceChildren();
    this.options.el.classList.remove('c2v-viewer');
  }

  private isPreview(): boolean {
    return this.entry?.kind === 'file' && previewKind(this.entry) !== undefined;
  }

  /** Says when what is shown is not the newest any more; it stays as it is until it is asked for anew. */
  private listen(entry: Entry): void {
    const root = entry.root ?? rootOf(this.address);
    const { signal } = this.controller;
    if (!entry.version || signal.aborted) {
      return;
    }
    this.unlisten = this.options.transport.events(root, message => {
      const event = message.events?.findLast(e => e.path === entry.path);
      if (event?.change === 'delete') {
        this.say('This dataset is gone. What is shown is what it was.');
      } else if (event) {
        this.compare(entry, event.entry as Entry | undefined);
      } else if (message.type === 'resync') {
        const address = addressOf(root, entry.path);
        this.service.entry(address, signal).then(now => this.compare(entry, now), () => undefined);
      }
    });
  }

  private compare(shown: Entry, now: Entry | undefined): void {
    if (this.entry === shown && now?.version && now.version !== shown.version) {
      this.say('This dataset has changed since it was opened.');
      this.offer('Show it as it is now');
    }
  }

  private offer(text: string, run = (): void => void this.open(this.address)): void {
    const again = document.createElement('button');
    again.type = 'button';
    again.textContent = text;
    again.onclick = run;
    this.status.append(' ', again);
  }

  private clear(): void {
    this.unlisten?.();
    this.unlisten = null;
    this.controller.abort(new DOMException('another address is shown', 'AbortError'));
    this.controller = new AbortController();
    this.entry = null;
    this.unmount();
  }

  private unmount(): void {
    this.takeAway?.();
    this.takeAway = null;
    live.delete(this);
    this.body.replaceChildren();
  }

  private setVisible(isVisible: boolean): void {
    const wasVisible = this.isVisible;
    this.isVisible = isVisible;
    if (isVisible && !wasVisible && this.entry && !this.takeAway) {
      void this.show();
    } else if (!isVisible && live.has(this) && live.size > MAX_LIVE) {
      this.unmount();
    }
  }

  private async show(): Promise<void> {
    const { signal } = this.controller;
    const entry = this.entry!;
    this.unmount();
    this.say('');
    const box = document.createElement('div');
    box.className = 'c2v-box';
    this.body.replaceChildren(box);
    try {
      const display = this.displays.find(d => d.name === this.chosen);
      const takeAway = await this.shown(box, entry, display, signal);
      if (signal.aborted || !box.isConnected) {
        takeAway();
        return;
      }
      this.takeAway = takeAway;
      live.add(this);
      for (const other of live) {
        if (live.size > MAX_LIVE && other.isHidden) {
          other.release();
        }
      }
    } catch (error) {
      this.fail(error, signal);
    }
  }

  private async shown(
    box: HTMLElement,
    entry: Entry,
    display: DisplayInfo | undefined,
    signal: AbortSignal
  ): Promise<() => void> {
    if (display) {
      return showDisplay(box, this.service, display, entry, this.theme);
    }
    if (entry.kind === 'unsupported' || entry.kind === 'link') {
      const what = entry.kind === 'link' ? `a link to ${entry.target}` : 'not supported';
      this.say(`${shown(nameOf(entry.path))} is ${what}${entry.reason ? `: ${entry.reason}` : ''}`);
      return () => undefined;
    }
    if (this.isPreview()) {
      const takeAway = await showPreview(box, this.service, entry, { signal, isDark: this.theme === 'dark' });
      return takeAway;
    }
    const address = addressOf(entry.root ?? rootOf(this.address), entry.path);
    const isGroup = entry.kind === 'group';
    const scope = isGroup ? address : address.slice(0, address.lastIndexOf('/'));
    const provider = new Provider(this.service, scope, entry, file => {
      const isOurs = previewKind(file) !== undefined;
      if (isOurs) {
        void this.open(addressOf(rootOf(scope), file.path));
      }
      return isOurs;
    });
    if (isGroup) {
      provider.listScope();
    }
    return showH5Web(box, provider, provider.first);
  }

  private say(text: string): void {
    this.status.textContent = plainText(text);
    this.status.hidden = !text;
  }

  private fail(error: unknown, signal: AbortSignal): void {
    if (signal.aborted) {
      return;
    }
    this.unmount();
    this.say(sentence(error));
    this.offer('Try again');
  }

  /** Tabs for the displays of a dataset, where there are any, and the way to a file's bytes. */
  private drawBar(): void {
    const tabs = [{ name: '', title: 'Viewer' }, ...this.displays];
    this.bar.hidden = tabs.length < 2;
    const buttons = tabs.map(({ name, title }) => {
      const tab = document.createElement('button');
      tab.type = 'button';
      tab.textContent = title;
      tab.setAttribute('role', 'tab');
      const isChosen = name === this.chosen;
      tab.setAttribute('aria-selected', String(isChosen));
      tab.tabIndex = isChosen ? 0 : -1;
      tab.onclick = () => {
        this.chosen = name;
        this.drawBar();
        this.bar.querySelector<HTMLElement>('[aria-selected="true"]')?.focus();
        void this.show();
      };
      tab.onkeydown = event => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (step) {
          const all = [...this.bar.querySelectorAll<HTMLElement>('[role="tab"]')];
          all[(all.indexOf(tab) + step + all.length) % all.length].focus();
        }
      };
      return tab;
    });
    this.bar.replaceChildren(...buttons);
  }
}

const STYLED = 'data-caterva2-viewer';

/** Once per document or shadow root. */
function addStyle(el: HTMLElement): void {
  const place = el.getRootNode();
  const parent = place instanceof ShadowRoot ? place : document.head;
  if (!parent.querySelector(`style[${STYLED}]`)) {
    const style = document.createElement('style');
    style.setAttribute(STYLED, '');
    style.textContent = `${h5webStyle}\n${ownStyle}`;
    parent.append(style);
  }
}

/** Puts a viewer into an element, which gives it its size. */
export function mountViewer(options: ViewerOptions): ViewerHandle {
  const viewer = new Viewer(options);
  if (options.path) {
    void viewer.open(options.path);
  }
  return viewer;
}

/** What anywidget calls: `path`, `theme` and `height` (pixels) are traits of the model, requests go over its comm. */
function render({ model, el }: { model: WidgetModel; el: HTMLElement }): () => void {
  const transport = new CommTransport(model);
  const box = document.createElement('div');
  box.style.height = `${Number(model.get('height')) || 480}px`;
  el.append(box);
  const text = (name: string): string => String(model.get(name) ?? '');
  const theme = (): Theme => (text('theme') === 'dark' || isDarkPage(el) ? 'dark' : 'light');
  const viewer = mountViewer({ el: box, transport, path: text('path'), theme: theme() });
  const onPath = (): void => void viewer.open(text('path'));
  const onTheme = (): void => viewer.setTheme(theme());
  model.on('change:path', onPath);
  model.on('change:theme', onTheme);
  const observer = new MutationObserver(onTheme);
  observer.observe(document.body, { attributes: true, attributeFilter: ['data-jp-theme-light'] });
  const keepKeys = (event: KeyboardEvent): void => keepKey(box, event);
  window.addEventListener('keydown', keepKeys, true); // before the document, where notebooks listen
  return () => {
    window.removeEventListener('keydown', keepKeys, true);
    observer.disconnect();
    model.off('change:path', onPath);
    model.off('change:theme', onTheme);
    viewer.dispose();
    transport.dispose();
    box.remove();
  };
}

/**
 * Keys of sliders and menus are theirs: the notebook around would move to another cell, or cut one. Its shortcuts pass over
 * an element that says so, but only where they look at that before its ancestors. Ctrl+S and the like stay the notebook's.
 */
function keepKey(box: HTMLElement, event: KeyboardEvent): void {
  const target = event.target;
  if (target instanceof Element && box.contains(target)) {
    const isChord = event.ctrlKey || event.metaKey || event.altKey;
    target.toggleAttribute('data-lm-suppress-shortcuts', !isChord);
  }
}

/** JupyterLab tells its theme on the body. */
function isDarkPage(el: HTMLElement): boolean {
  return el.ownerDocument.body.dataset.jpThemeLight === 'false';
}

export { downloadPath };
export default { render };
