// The page that a subscriber serves: the browser of remote datasets on the left, the viewer on the right. The address
// that is shown is in the URL's fragment (`#/ROOT/PATH`), so that it can be kept, sent and gone back to.
import { mountBrowser } from '../browser';
import { shownPath } from '../text';
import { FetchTransport } from '../transport';
import type { mountViewer, Theme, ViewerHandle } from '../viewer/main';
import '../browser/browser.css';
import './page.css';

const NARROWEST_PX = 180;
/** Part of the window that the list may take. */
const WIDEST = 0.7;
const KEEP = 'caterva2:page';

interface Kept {
  theme?: Theme;
  width?: number;
}

const hashOf = (address: string): string => `#/${address.split('/').map(encodeURIComponent).join('/')}`;

class Page {
  private readonly base = new URL('.', document.baseURI).href;
  private readonly transport = new FetchTransport(this.base);
  private readonly side = document.createElement('nav');
  private readonly main = document.createElement('main');
  private readonly welcome = document.createElement('p');
  private readonly box = document.createElement('div');
  private readonly themeButton = document.createElement('button');
  private readonly kept: Kept = read();
  private viewer: Promise<ViewerHandle> | null = null;
  private readonly browser;

  constructor(private readonly el: HTMLElement) {
    this.side.className = 'c2p-side';
    this.side.setAttribute('aria-label', 'Roots and datasets');
    this.main.className = 'c2p-main';
    this.box.className = 'c2p-viewer';
    this.box.hidden = true;
    this.welcome.className = 'c2p-welcome';
    this.welcome.textContent = 'Choose a dataset on the left.';
    this.main.append(this.welcome, this.box);
    el.append(this.header(), this.side, this.main);
    const list = document.createElement('div');
    list.className = 'c2p-browser';
    this.side.append(list, this.splitter());
    this.browser = mountBrowser({
      el: list,
      transport: this.transport,
      host: { open: address => this.go(address) }
    });
    this.browser.setVisible(true);
    this.setTheme(this.kept.theme ?? 'light');
    this.setWidth(this.kept.width ?? 320);
    window.addEventListener('hashchange', () => this.follow());
    this.followQuery();
    this.follow();
  }

  private header(): HTMLElement {
    const header = document.createElement('header');
    header.className = 'c2p-header';
    const title = document.createElement('h1');
    title.textContent = 'Remote arrays';
    const user = document.createElement('span');
    user.className = 'c2p-user';
    void this.showUser(user);
    this.themeButton.type = 'button';
    this.themeButton.onclick = () => this.setTheme(this.kept.theme === 'dark' ? 'light' : 'dark');
    header.append(title, user, this.themeButton);
    return header;
  }

  /** Who one is, and the way in or out; nothing where nobody logs in. */
  private async showUser(box: HTMLElement): Promise<void> {
    let told: { name: string | null; login: boolean };
    try {
      const answer = await this.transport.get('api/v1/user');
      told = JSON.parse(new TextDecoder().decode(await answer.bytes()));
    } catch {
      return; // the browser of datasets tells what is wrong
    }
    if (!told.login) {
      return;
    }
    const link = document.createElement('a');
    const set = (): void => {
      const here = new URL(this.base).pathname + (this.address ? `?open=${encodeURIComponent(this.address)}` : '');
      link.href = new URL(told.name ? 'logout' : `login?next=${encodeURIComponent(here)}`, this.base).href;
    };
    set();
    window.addEventListener('hashchange', set);
    link.textContent = told.name ? 'Log out' : 'Log in';
    box.append(told.name ?? '', ' ', link);
  }

  /** Moved by the pointer or by the arrow keys. */
  private splitter(): HTMLElement {
    const splitter = document.createElement('div');
    splitter.className = 'c2p-splitter';
    splitter.setAttribute('role', 'separator');
    splitter.setAttribute('aria-label', 'Width of the list');
    splitter.setAttribute('aria-orientation', 'vertical');
    splitter.setAttribute('aria-valuemin', String(NARROWEST_PX));
    splitter.setAttribute('aria-valuenow', String(NARROWEST_PX));
    splitter.tabIndex = 0;
    splitter.onkeydown = event => {
      const step = { ArrowLeft: -20, ArrowRight: 20 }[event.key];
      if (step) {
        this.setWidth(this.side.offsetWidth + step);
      }
    };
    splitter.onpointerdown = event => splitter.setPointerCapture(event.pointerId);
    splitter.onpointermove = event => {
      if (splitter.hasPointerCapture(event.pointerId)) {
        this.setWidth(event.clientX);
      }
    };
    return splitter;
  }

  private setWidth(px: number): void {
    this.kept.width = Math.max(NARROWEST_PX, Math.min(px, window.innerWidth * WIDEST));
    this.side.style.width = `${this.kept.width}px`;
    const splitter = this.side.querySelector('.c2p-splitter');
    splitter?.setAttribute('aria-valuemax', String(Math.round(window.innerWidth * WIDEST)));
    splitter?.setAttribute('aria-valuenow', String(Math.round(this.kept.width)));
    keep(this.kept);
  }

  private setTheme(theme: Theme): void {
    this.kept.theme = theme;
    keep(this.kept);
    this.el.dataset.theme = theme;
    this.themeButton.textContent = theme === 'dark' ? 'Light theme' : 'Dark theme';
    void this.viewer?.then(viewer => viewer.setTheme(theme));
  }

  /** What the URL's fragment names. */
  private get address(): string {
    try {
      return decodeURIComponent(location.hash.replace(/^#\/?/, '')).replace(/\/$/, '');
    } catch {
      return ''; // not percent-encoded UTF-8: there is nothing of that name
    }
  }

  private go(address: string): void {
    const hash = hashOf(address);
    if (location.hash === hash) {
      this.follow();
    } else {
      location.hash = hash;
    }
  }

  /** `?open=ROOT/PATH` is the same as the fragment, in a form that is not lost on the way through a login. */
  private followQuery(): void {
    const address = new URLSearchParams(location.search).get('open');
    if (address && !location.hash) {
      history.replaceState(null, '', `${location.pathname}${hashOf(address)}`);
    }
  }

  /** Shows what the URL's fragment names. */
  private follow(): void {
    const address = this.address;
    this.welcome.hidden = Boolean(address);
    this.box.hidden = !address;
    document.title = address ? `${shownPath(address)} · Remote arrays` : 'Remote arrays';
    if (!address) {
      return;
    }
    void this.browser.reveal(address);
    this.viewer ??= this.makeViewer();
    this.viewer.then(viewer => viewer.open(address)).catch((error: unknown) => this.fail(error));
  }

  /** The viewer is loaded when something is opened for the first time. */
  private async makeViewer(): Promise<ViewerHandle> {
    const url = new URL(this.el.dataset.viewer!, this.base).href;
    const module = (await import(/* @vite-ignore */ url)) as { mountViewer: typeof mountViewer };
    return module.mountViewer({ el: this.box, transport: this.transport, theme: this.kept.theme });
  }

  private fail(error: unknown): void {
    this.viewer = null;
    this.box.hidden = true;
    this.welcome.hidden = false;
    this.welcome.setAttribute('role', 'alert');
    const reason = error instanceof Error ? error.message : String(error);
    this.welcome.textContent = `The viewer could not be loaded (${reason}): reload this page.`;
  }
}

/** What this browser remembers of the page; it may refuse to. */
function read(): Kept {
  try {
    return JSON.parse(localStorage.getItem(KEEP) ?? '{}') as Kept;
  } catch {
    return {};
  }
}

function keep(kept: Kept): void {
  try {
    localStorage.setItem(KEEP, JSON.stringify(kept));
  } catch {
    // Then it is forgotten.
  }
}

new Page(document.getElementById('page')!);
