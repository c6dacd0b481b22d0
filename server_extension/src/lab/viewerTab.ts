// A tab with the viewer, which is loaded from the server at its first use. Failures to load it are told in the tab.
import { Message } from '@lumino/messaging';
import { Widget } from '@lumino/widgets';
import { shown, shownPath } from '../text';
import type { Transport } from '../transport';

type Theme = 'light' | 'dark';

interface ViewerHandle {
  open(path: string): Promise<void> | void;
  setTheme(theme: Theme): void;
  dispose(): void;
}

interface ViewerModule {
  mountViewer(options: {
    el: HTMLElement;
    transport: Transport;
    path?: string;
    theme?: Theme;
    onOpen?: (path: string) => void;
  }): ViewerHandle;
}

/** The theme that Lab has now. */
export function themeNow(): Theme {
  return document.body.dataset.jpThemeLight === 'false' ? 'dark' : 'light';
}

export class ViewerTab extends Widget {
  /** Called when another dataset is shown. */
  onPath: (path: string) => void = () => undefined;
  private viewer: ViewerHandle | null = null;
  private loading = false;

  constructor(
    private readonly transport: Transport,
    private shownPath: string,
    /** Until then tabs come and go as the layout is put together. */
    private readonly restored: Promise<void>,
    /** What the saved layout calls a tab that comes back; new ones have a name of their own. */
    name = `caterva2-viewer-${crypto.getRandomValues(new Uint32Array(2)).join('-')}`
  ) {
    super();
    this.id = name;
    this.addClass('c2-viewer-tab');
    this.title.closable = true;
    this.setTitle();
  }

  get path(): string {
    return this.shownPath;
  }

  /** Show a dataset. */
  open(path: string): void {
    this.shownPath = path;
    this.setTitle();
    if (this.viewer !== null) {
      void this.viewer.open(path);
    } else {
      void this.load();
    }
  }

  setTheme(theme: Theme): void {
    this.viewer?.setTheme(theme);
  }

  protected onAfterShow(msg: Message): void {
    super.onAfterShow(msg);
    void this.load(); // a restored tab asks for nothing before it is seen
  }

  protected onAfterAttach(msg: Message): void {
    super.onAfterAttach(msg);
    if (this.isVisible) {
      void this.load();
    }
  }

  dispose(): void {
    if (!this.isDisposed) {
      this.viewer?.dispose();
      this.viewer = null;
    }
    super.dispose();
  }

  private setTitle(): void {
    this.title.label = shown(this.shownPath.split('/').pop()?.replace(/\.b2nd$/, '') || 'Remote data');
    this.title.caption = shownPath(this.shownPath);
  }

  private async load(): Promise<void> {
    await this.restored;
    if (this.viewer !== null || this.loading || !this.isVisible) {
      return; // it loads as soon as it is shown
    }
    this.loading = true;
    const wait = document.createElement('p');
    wait.className = 'c2-viewer-wait';
    wait.setAttribute('role', 'status');
    wait.textContent = 'Loading the viewer…';
    this.node.replaceChildren(wait);
    try {
      const url = this.transport.moduleUrl?.('static/viewer.js') ?? '';
      const module = (await import(/* webpackIgnore: true */ url)) as ViewerModule;
      if (this.isDisposed) {
        return;
      }
      const el = document.createElement('div');
      el.className = 'c2-viewer-host';
      this.node.replaceChildren(el);
      this.viewer = module.mountViewer({
        el,
        transport: this.transport,
        path: this.shownPath,
        theme: themeNow(),
        onOpen: path => {
          this.shownPath = path;
          this.setTitle();
          this.onPath(path);
        }
      });
    } catch {
      this.showFailure();
    } finally {
      this.loading = false;
    }
  }

  private showFailure(): void {
    const box = document.createElement('div');
    box.className = 'c2-viewer-failure';
    box.setAttribute('role', 'alert');
    const title = document.createElement('strong');
    title.textContent = 'The viewer cannot be loaded.';
    const cure = document.createElement('p');
    cure.textContent =
      "Check that the Jupyter server is running and you are logged in. If it never worked: run pip install 'caterva2-jupyter[lab]' in the environment that runs Jupyter, then restart it.";
    const again = document.createElement('button');
    again.className = 'jp-Button jp-mod-styled';
    again.textContent = 'Try again';
    again.onclick = () => void this.load();
    box.append(title, cure, again);
    this.node.replaceChildren(box);
  }
}
