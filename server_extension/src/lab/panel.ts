// The panel at the left: the browser of remote datasets, asking for nothing while it is hidden.
import { Message } from '@lumino/messaging';
import { Widget } from '@lumino/widgets';
import type { Browser, BrowserHost } from '../browser';
import { mountBrowser } from '../browser';
import type { Transport } from '../transport';

export const PANEL_ID = 'caterva2-panel';

export class BrowserWidget extends Widget {
  readonly browser: Browser;

  constructor(transport: Transport, host: BrowserHost) {
    super();
    this.id = PANEL_ID;
    this.addClass('c2-panel');
    this.browser = mountBrowser({ el: this.node, transport, host });
  }

  protected onAfterShow(msg: Message): void {
    super.onAfterShow(msg);
    this.browser.setVisible(true);
  }

  protected onAfterAttach(msg: Message): void {
    super.onAfterAttach(msg);
    this.browser.setVisible(this.isVisible);
  }

  protected onAfterHide(msg: Message): void {
    super.onAfterHide(msg);
    this.browser.setVisible(false);
  }

  protected onActivateRequest(msg: Message): void {
    super.onActivateRequest(msg);
    this.browser.focus();
  }

  dispose(): void {
    if (!this.isDisposed) {
      this.browser.dispose();
    }
    super.dispose();
  }
}
