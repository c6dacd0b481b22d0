/** The running state as a page: what the cache holds and saved, and which connections stand. */

import { shown } from '../text';
import type { Transport } from '../transport';
import { button, make } from './dom';
import { explain, isAbort } from './failures';
import { formatBytes, formatCount, formatFraction, formatTime } from './format';
import type { Summary } from './service';
import { isOnline, Service } from './service';

const EVERY_MS = 3000;

export interface StatePage {
  setVisible(isVisible: boolean): void;
  refresh(): Promise<void>;
  dispose(): void;
}

/** Part of the blocks asked for that were here already; null when nothing was read yet. */
export function hitRatio(summary: Summary): number | null {
  const { held_blocks, fetched_blocks } = summary.reads;
  return held_blocks + fetched_blocks === 0 ? null : held_blocks / (held_blocks + fetched_blocks);
}

/** Sentences about what does not work; none when all is well. */
export function problems(summary: Summary): string[] {
  const found = summary.roots
    .filter(root => root.followed && !isOnline(root))
    .map(root => `${shown(root.root)} is offline${root.since ? ` since ${formatTime(Date.parse(root.since))}` : ''}${root.reason ? `: ${root.reason}` : ''}. What is kept of it can be read.`);
  const { corrupt = 0, refused = 0 } = summary.counters;
  if (corrupt > 0) {
    found.push(`${formatCount(corrupt)} blocks failed their checksum and were fetched again: check the disk of the cache.`);
  }
  if (refused > 0) {
    found.push(`${formatCount(refused)} blocks could not be kept: the disk is full, or pins take all of the quota.`);
  }
  return found;
}

/** Put the page into an element. */
export function mountState(el: HTMLElement, transport: Transport, open?: (root: string) => void): StatePage {
  return new State(el, new Service(transport), open);
}

class State implements StatePage {
  private readonly element = make('div', { class: 'c2b c2b-state' });
  private isVisible = false;
  private timer = 0;
  private readonly content = make('div');

  constructor(
    el: HTMLElement,
    private readonly service: Service,
    private readonly open?: (root: string) => void
  ) {
    this.element.append(
      make('div', { class: 'c2b-header' }, make('h2', { text: 'Running state' }), button('Refresh', 'refresh', () => void this.refresh(), { quiet: true })),
      this.content
    );
    el.append(this.element);
  }

  setVisible(isVisible: boolean): void {
    this.isVisible = isVisible;
    window.clearTimeout(this.timer);
    if (isVisible) {
      void this.refresh();
    }
  }

  dispose(): void {
    this.setVisible(false);
    this.element.remove();
  }

  async refresh(): Promise<void> {
    window.clearTimeout(this.timer);
    try {
      this.draw(await this.service.summary());
    } catch (error) {
      if (!isAbort(error)) {
        const { title, cure } = explain(error);
        this.content.replaceChildren(
          make('div', { class: 'c2b-notice', role: 'alert' }, make('strong', { text: title }), make('p', { text: cure }), button('Try again', 'refresh', () => void this.refresh()))
        );
      }
    }
    if (this.isVisible) {
      this.timer = window.setTimeout(() => void this.refresh(), EVERY_MS);
    }
  }

  private draw(summary: Summary): void {
    const { reads } = summary;
    const ratio = hitRatio(summary);
    const cards = make(
      'div',
      { class: 'c2b-cards' },
      card('Cache', formatBytes(summary.usage_nbytes), `of ${formatBytes(summary.quota_nbytes)}`, summary.usage_nbytes / summary.quota_nbytes),
      card('Hit ratio', ratio === null ? '–' : formatFraction(ratio), ratio === null ? 'nothing was read yet' : `${formatCount(reads.held_blocks)} of ${formatCount(reads.held_blocks + reads.fetched_blocks)} blocks`, ratio ?? 0),
      card('Saved', formatBytes(reads.held_nbytes), 'that did not cross the network'),
      card('Fetched', formatBytes(reads.fetched_nbytes), `since ${formatTime(reads.since * 1000)}`)
    );
    const found = problems(summary);
    const list = make('ul', { class: 'c2b-problems', 'aria-label': 'Problems' });
    for (const problem of found) {
      list.append(make('li', { text: problem }));
    }
    const rows = make('tbody');
    for (const root of summary.roots) {
      const name = make('button', { type: 'button', class: 'c2b-link', text: shown(root.root) });
      name.addEventListener('click', () => this.open?.(root.root));
      const part = root.total_nbytes > 0 ? root.kept_nbytes / root.total_nbytes : 0;
      rows.append(
        make(
          'tr',
          {},
          make('th', { scope: 'row' }, name),
          make('td', {}, make('span', { class: `c2b-dot ${isOnline(root) ? 'c2b-online' : 'c2b-offline'}` }), ` ${isOnline(root) ? 'online' : 'offline'}`),
          make('td', { text: root.followed ? 'following' : 'not followed' }),
          make('td', { text: root.followed ? `${formatBytes(root.kept_nbytes)} of ${formatBytes(root.total_nbytes)} (${formatFraction(part)})` : '–' })
        )
      );
    }
    const head = make('tr', {}, ...['Root', 'Connection', 'Followed', 'Kept here'].map(text => make('th', { scope: 'col', text })));
    this.content.replaceChildren(
      cards,
      found.length > 0 ? list : make('p', { class: 'c2b-well', text: 'No problems.' }),
      make('table', { class: 'c2b-table', 'aria-label': 'Roots' }, make('thead', {}, head), rows),
      make('p', { class: 'c2b-faint', text: `The cache is in ${summary.directory}` })
    );
  }
}

function card(title: string, value: string, note: string, part?: number): HTMLElement {
  const element = make('div', { class: 'c2b-card' }, make('h3', { text: title }), make('strong', { text: value }));
  if (part !== undefined) {
    element.append(make('progress', { max: 1, value: Math.min(1, part), 'aria-label': title }));
  }
  element.append(make('span', { class: 'c2b-faint', text: note }));
  return element;
}
