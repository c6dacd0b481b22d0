/** What goes on for longer: a line each with how far it is and a way to end it; and short messages. */

import { plainText } from '../text';
import { button, make } from './dom';
import { formatFraction } from './format';
import type { Explanation } from './failures';
import { explain, isAbort } from './failures';

const MESSAGE_MS = 6000;

export class Tasks {
  readonly element = make('div', { class: 'c2b-tasks' });
  private readonly status = make('p', { class: 'c2b-message', role: 'status' });
  private timer = 0;

  constructor() {
    this.element.append(this.status);
  }

  /** Tell something in passing. */
  say(text: string, isLasting = false): void {
    window.clearTimeout(this.timer);
    this.status.textContent = plainText(text);
    this.status.classList.remove('c2b-bad');
    if (!isLasting) {
      this.timer = window.setTimeout(() => (this.status.textContent = ''), MESSAGE_MS);
    }
  }

  /** Tell of a failure; it stays until something else is told. */
  fail(what: string, error: unknown): void {
    const explanation: Explanation = explain(error);
    this.say(`${what}: ${explanation.title} ${explanation.cure}`, true);
    this.status.classList.add('c2b-bad');
  }

  /** Ask a question; true when it is answered by what is offered. */
  ask(question: string, action: string): Promise<boolean> {
    return new Promise(resolve => {
      const box = make('div', { class: 'c2b-form', role: 'alertdialog', 'aria-label': question }, make('p', { text: question }));
      const end = (answer: boolean): void => {
        box.remove();
        resolve(answer);
      };
      const yes = button(action, null, () => end(true), { class: 'c2b-danger' });
      box.append(make('span', { class: 'c2b-toolbar' }, yes, button('Cancel', null, () => end(false))));
      this.element.prepend(box);
      yes.focus();
    });
  }

  /** Run something long; `tell` takes the part that is done, or NaN where that is not known. */
  async run(
    what: string,
    work: (tell: (part: number) => void, signal: AbortSignal) => Promise<string | undefined>
  ): Promise<boolean> {
    const abort = new AbortController();
    const bar = make('progress', { max: 1, 'aria-label': what });
    const percent = make('span', { class: 'c2b-percent' });
    const line = make(
      'div',
      { class: 'c2b-task' },
      make('span', { class: 'c2b-task-name', text: what, title: what }),
      bar,
      percent,
      button(`Cancel: ${what}`, 'close', () => abort.abort(), { quiet: true, class: 'c2b-small' })
    );
    this.element.prepend(line);
    try {
      const done = await work(part => {
        if (Number.isFinite(part)) {
          bar.value = part;
          percent.textContent = formatFraction(part);
        }
      }, abort.signal);
      this.say(done ?? `${what}: done`);
      return true;
    } catch (error) {
      if (isAbort(error) || abort.signal.aborted) {
        this.say(`${what}: cancelled`);
      } else {
        this.fail(what, error);
      }
      return false;
    } finally {
      line.remove();
    }
  }
}
