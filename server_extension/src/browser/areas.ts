/** What can be done in areas, the roots that may be written to: upload, new folder, move, copy, remove. */

import type { Transport } from '../transport';
import { shown, shownPath } from '../text';
import { bodyOf, getJson, sendJson, ServiceError } from '../transport';
import { button, make } from './dom';
import type { TreeNode } from './model';
import { isArea } from './model';
import type { Tasks } from './tasks';

interface AreasForm {
  areas: { name: string; writable: boolean }[];
}

function filePath(address: string): string {
  return `api/v1/files/${address.split('/').map(encodeURIComponent).join('/')}`;
}

export class Areas {
  private writable = new Set<string>();

  constructor(
    private readonly transport: Transport,
    private readonly tasks: Tasks,
    /** Called when something may have changed in a root. */
    private readonly changed: (root: string) => void
  ) {}

  /** Learn which areas there are; did that change? */
  async load(roots: readonly string[]): Promise<boolean> {
    if (!roots.some(isArea)) {
      return false;
    }
    try {
      const { areas } = await getJson<AreasForm>(this.transport, 'api/v1/areas');
      const writable = new Set(areas.filter(area => area.writable).map(area => area.name));
      const isOther = [...writable].join() !== [...this.writable].join();
      this.writable = writable;
      return isOther;
    } catch {
      return false; // without them nothing can be written; the roots say what fails
    }
  }

  canWrite(node: TreeNode): boolean {
    return this.writable.has(node.root);
  }

  /** Can files be put into it? */
  canTake(node: TreeNode): boolean {
    return this.canWrite(node) && (node.kind === 'root' || (node.kind === 'group' && node.entry?.storage === undefined));
  }

  /** Is it a file or directory of its own, not something inside a file? */
  private isOwn(node: TreeNode): boolean {
    for (let above = node.parent; above !== null; above = above.parent) {
      if (above.entry?.storage !== undefined) {
        return false;
      }
    }
    return node.kind !== 'root';
  }

  /** Buttons for a node; their forms come into `place`. */
  buttons(node: TreeNode, place: () => Element | null): HTMLElement[] {
    const found: HTMLElement[] = [];
    const show = (form: HTMLElement): void => {
      const goal = place();
      goal?.replaceChildren(form);
      (form.querySelector<HTMLElement>('input, button.c2b-danger') ?? form).focus();
    };
    if (this.canTake(node)) {
      const input = make('input', { type: 'file', multiple: true, hidden: true, 'aria-label': 'Files to upload' });
      input.addEventListener('change', () => {
        if (input.files !== null) {
          void this.upload(node, [...input.files]);
        }
        input.value = '';
      });
      found.push(
        button('Upload', 'upload', () => input.click(), { title: 'Upload files into it (or drop them on it)' }),
        input,
        button('New folder', 'group', () => show(this.nameForm('New folder', `${node.address}/`, 'Make', to => this.makeFolder(node, to))), { quiet: true })
      );
    }
    const hasGoal = this.writable.size > 0;
    if (hasGoal && node.kind !== 'root' && node.kind !== 'link' && node.kind !== 'unsupported') {
      const goal = this.canWrite(node) ? node.root : this.writable.has('@personal') ? '@personal' : [...this.writable][0];
      const name = node.path.split('/').pop() ?? '';
      const to = this.canWrite(node) ? copyName(node.address) : `${goal}/${name}`;
      found.push(button('Copy to…', 'copy', () => show(this.nameForm('Copy to', to, 'Copy', at => this.transfer('copy', node, at))), { quiet: true }));
    }
    if (this.canWrite(node) && this.isOwn(node)) {
      found.push(
        button('Move or rename…', 'move', () => show(this.nameForm('Move to', node.address, 'Move', at => this.transfer('move', node, at))), { quiet: true }),
        button('Remove…', 'remove', () => show(this.confirmation(`Remove ${shownPath(node.address)} for good?`, 'Remove', () => this.remove(node))), { quiet: true })
      );
    }
    return found;
  }

  private nameForm(label: string, value: string, action: string, run: (to: string) => Promise<boolean>): HTMLElement {
    const input = make('input', { type: 'text', class: 'c2b-search', 'aria-label': label, value, spellcheck: 'false' });
    const form = make('form', { class: 'c2b-form', 'aria-label': label }, make('label', { text: label }), input);
    const submit = make('button', { type: 'submit', class: 'c2b-button c2b-primary', text: action });
    form.append(make('span', { class: 'c2b-toolbar' }, submit, button('Cancel', null, () => form.remove())));
    form.addEventListener('submit', event => {
      event.preventDefault();
      void run(input.value.trim().replace(/^\/+/, '')).then(isDone => isDone && form.remove());
    });
    form.addEventListener('keydown', event => {
      event.stopPropagation(); // or Lab takes keys for shortcuts
      if (event.key === 'Escape') {
        form.remove();
      }
    });
    return form;
  }

  private confirmation(question: string, action: string, run: () => Promise<unknown>): HTMLElement {
    const form = make('div', { class: 'c2b-form', role: 'alertdialog', 'aria-label': question }, make('p', { text: question }));
    form.append(
      make(
        'span',
        { class: 'c2b-toolbar' },
        button(action, null, () => void run().then(() => form.remove()), { class: 'c2b-danger' }),
        button('Cancel', null, () => form.remove())
      )
    );
    return form;
  }

  /** Put files into an area or a directory of one; what is there already is asked about, never replaced silently. */
  async upload(node: TreeNode, files: readonly File[]): Promise<void> {
    for (const file of files) {
      const path = filePath(`${node.address}/${file.name}`);
      await this.tasks.run(`Upload ${shown(file.name)}`, async (_, signal) => {
        const put = async (headers: Record<string, string>): Promise<void> => {
          await bodyOf(await this.transport.send('PUT', path, file, { signal, headers }));
        };
        try {
          await put({ 'If-None-Match': '*' });
        } catch (error) {
          const isThere = (error as ServiceError).status === 409 || (error as ServiceError).status === 412;
          if (!isThere || !(await this.tasks.ask(`${shown(file.name)} is there already. Replace it?`, 'Replace'))) {
            throw error;
          }
          await put({});
        }
        return `${shown(file.name)} is in ${shownPath(node.address)}.`;
      });
    }
    this.changed(node.root);
  }

  private async makeFolder(node: TreeNode, to: string): Promise<boolean> {
    return this.attempt('New folder', node.root, () => sendJson(this.transport, 'POST', 'api/v1/areas/mkdir', { path: to }));
  }

  private async transfer(how: 'copy' | 'move', node: TreeNode, to: string): Promise<boolean> {
    const what = how === 'copy' ? `Copy ${shownPath(node.name)}` : `Move ${shownPath(node.name)}`;
    const isDone = await this.tasks.run(what, async () => {
      const answer = await sendJson<{ path: string }>(this.transport, 'POST', `api/v1/areas/${how}`, { src: node.address, dst: to });
      return `${how === 'copy' ? 'Copied' : 'Moved'} to ${shownPath(answer.path)}.`;
    });
    this.changed(node.root);
    this.changed(to.split('/')[0]);
    return isDone;
  }

  private async remove(node: TreeNode): Promise<boolean> {
    return this.attempt(`Remove ${shownPath(node.name)}`, node.root, () => sendJson(this.transport, 'DELETE', filePath(node.address)));
  }

  private async attempt(what: string, root: string, work: () => Promise<unknown>): Promise<boolean> {
    try {
      await work();
      this.tasks.say(`${what}: done.`);
      return true;
    } catch (error) {
      this.tasks.fail(what, error);
      return false;
    } finally {
      this.changed(root);
    }
  }
}

/** `a/x.b2nd` -> `a/x-copy.b2nd` */
function copyName(address: string): string {
  const slash = address.lastIndexOf('/');
  const dot = address.lastIndexOf('.');
  return dot > slash + 1 ? `${address.slice(0, dot)}-copy${address.slice(dot)}` : `${address}-copy`;
}
