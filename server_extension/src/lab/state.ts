// The running state: an item of the status bar, and its page as a tab.
import { Message } from '@lumino/messaging';
import { Widget } from '@lumino/widgets';
import { Service } from '../browser';
import { formatBytes, formatFraction } from '../browser/format';
import type { Summary } from '../browser/service';
import { isOnline } from '../browser/service';
import type { StatePage } from '../browser/state';
import { hitRatio, mountState, problems } from '../browser/state';
import { plainText } from '../text';
import type { ServiceError, Transport } from '../transport';

const EVERY_MS = 15_000;

/** Hit ratio and what was spared; what does not work comes first. Asks only when nobody told for a while. */
export class StateItem extends Widget {
  private readonly service: Service;
  private readonly button = document.createElement('button');
  private timer = 0;

  constructor(
    transport: Transport,
    private readonly showPage: () => void
  ) {
    super();
    this.service = new Service(transport);
    this.addClass('c2-state-item');
    this.button.type = 'button';
    this.button.className = 'c2-state-button';
    this.button.hidden = true;
    this.button.onclick = () => this.showPage();
    this.node.append(this.button);
  }

  protected onAfterAttach(msg: Message): void {
    super.onAfterAttach(msg);
    void this.refresh();
  }

  protected onBeforeDetach(msg: Message): void {
    window.clearTimeout(this.timer);
    super.onBeforeDetach(msg);
  }

  private async refresh(): Promise<void> {
    window.clearTimeout(this.timer);
    if (document.visibilityState === 'visible') {
      try {
        this.draw(await this.service.summary());
      } catch (error) {
        if ((error as ServiceError).status === 404) {
          return; // no server part: its panel says so to whoever wants it
        }
        this.tell('Remote data: not reachable', 'The subscriber does not answer', true);
      }
    }
    if (this.isAttached) {
      this.timer = window.setTimeout(() => void this.refresh(), EVERY_MS);
    }
  }

  /** Show a summary that somebody else has asked for. */
  draw(summary: Summary): void {
    window.clearTimeout(this.timer);
    if (this.isAttached) {
      this.timer = window.setTimeout(() => void this.refresh(), EVERY_MS);
    }
    const found = problems(summary);
    const ratio = hitRatio(summary);
    const offline = summary.roots.filter(root => root.followed && !isOnline(root)).length;
    const parts = [`Cache ${formatBytes(summary.usage_nbytes)}`];
    if (ratio !== null) {
      parts.push(`${formatFraction(ratio)} hits`, `${formatBytes(summary.reads.held_nbytes)} saved`);
    }
    if (offline > 0) {
      parts.unshift(`${offline} offline`);
    }
    const why = found.length > 0 ? `\n${found.join('\n')}` : '';
    this.tell(parts.join(' · '), `Remote data: cache, hit ratio and bytes saved${why}`, found.length > 0);
  }

  private tell(text: string, hint: string, isBad: boolean): void {
    this.button.hidden = false;
    this.button.textContent = text;
    this.button.title = plainText(hint);
    this.button.setAttribute('aria-label', `Remote data: ${text}`);
    this.button.classList.toggle('c2-state-bad', isBad);
  }
}

/** The page about the running state. */
export class StateTab extends Widget {
  private readonly page: StatePage;

  constructor(transport: Transport, open: (root: string) => void) {
    super();
    this.id = 'caterva2-state';
    this.addClass('c2-state-tab');
    this.title.label = 'Remote data: running state';
    this.title.closable = true;
    this.page = mountState(this.node, transport, open);
  }

  protected onAfterShow(msg: Message): void {
    super.onAfterShow(msg);
    this.page.setVisible(true);
  }

  protected onAfterAttach(msg: Message): void {
    super.onAfterAttach(msg);
    this.page.setVisible(this.isVisible);
  }

  protected onAfterHide(msg: Message): void {
    super.onAfterHide(msg);
    this.page.setVisible(false);
  }

  dispose(): void {
    if (!this.isDisposed) {
      this.page.dispose();
    }
    super.dispose();
  }
}
