/** Elements made without markup: text is always text, whatever is in it, and all of it is seen. */

import { plainText } from '../text';

export interface Attributes {
  class?: string;
  text?: string;
  title?: string;
  hidden?: boolean;
  [attribute: string]: string | number | boolean | undefined;
}

/** Attributes that people read or hear. */
const TOLD = new Set(['title', 'aria-label', 'placeholder']);

/** An element with attributes and children. */
export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: (Node | string | null)[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === false) {
      continue;
    }
    if (name === 'text') {
      element.textContent = plainText(String(value));
    } else {
      element.setAttribute(name, value === true ? '' : TOLD.has(name) ? plainText(String(value)) : String(value));
    }
  }
  element.append(...children.filter((child): child is Node | string => child !== null));
  return element;
}

// Paths of 16 x 16 drawings, of strokes.
const ICONS: { [name: string]: string } = {
  root: 'M8 2.2c3 0 5.2.9 5.2 2S11 6.2 8 6.2 2.8 5.3 2.8 4.2 5 2.2 8 2.2zM2.8 4.2v7.6c0 1.1 2.2 2 5.2 2s5.2-.9 5.2-2V4.2M2.8 8c0 1.1 2.2 2 5.2 2s5.2-.9 5.2-2',
  area: 'M2 4.5v8h12v-7H7.6L6.2 3.5H2zM8 11V7.5M6.3 9L8 7.3 9.7 9',
  group: 'M2 4.5v8h12v-7H7.6L6.2 3.5H2z',
  array: 'M2.5 2.5h11v11h-11zM2.5 6.2h11M2.5 9.8h11M6.2 2.5v11M9.8 2.5v11',
  file: 'M4 2h5l3 3v9H4zM9 2v3h3',
  link: 'M7 9l2-2M6 7L4.2 8.8a2 2 0 0 0 3 3L9 10M10 9l1.8-1.8a2 2 0 0 0-3-3L7 6',
  unsupported: 'M8 2.5l6 11H2zM8 7v3M8 11.8v.4',
  open: 'M6 4l4 4-4 4',
  view: 'M1.8 8S4 3.8 8 3.8 14.2 8 14.2 8 12 12.2 8 12.2 1.8 8 1.8 8zM8 6.2a1.8 1.8 0 1 0 0 3.6 1.8 1.8 0 0 0 0-3.6z',
  code: 'M5.5 4.5L2 8l3.5 3.5M10.5 4.5L14 8l-3.5 3.5',
  download: 'M8 2v8M4.8 7L8 10.2 11.2 7M2.5 13.5h11',
  prefetch: 'M4.6 11.5a3 3 0 0 1-.3-6 4 4 0 0 1 7.6 1 2.5 2.5 0 0 1 .1 5M8 7v6M6 11l2 2 2-2',
  pin: 'M5.5 2.5h5M6.5 2.5v4L4 9.5h8L9.5 6.5v-4M8 9.5v4.5',
  refresh: 'M13 8a5 5 0 1 1-1.5-3.6M13 2.5v3h-3',
  state: 'M2 13.5h12M4 11V8M7 11V4M10 11V6.5M13 11V3',
  follow: 'M8 2.2l1.8 3.7 4 .6-2.9 2.8.7 4L8 11.4l-3.6 1.9.7-4L2.2 6.5l4-.6z',
  close: 'M4 4l8 8M12 4l-8 8',
  check: 'M3 8.5L6.5 12 13 4.5',
  upload: 'M8 10V2M4.8 5.2L8 2l3.2 3.2M2.5 13.5h11',
  remove: 'M3 4.5h10M6 4.5v-2h4v2M4.5 4.5l.5 9h6l.5-9',
  copy: 'M5.5 5.5h8v8h-8zM10.5 5.5v-3h-8v8h3',
  move: 'M3 8h9M9 5l3 3-3 3'
};

/** A drawing that takes the colour of the text around it. */
export function icon(name: string, extra = ''): SVGSVGElement {
  const namespace = 'http://www.w3.org/2000/svg';
  const svg = document.createElementNS(namespace, 'svg');
  svg.setAttribute('viewBox', '0 0 16 16');
  svg.setAttribute('class', `c2b-icon c2b-icon-${name in ICONS ? name : 'unsupported'} ${extra}`.trim());
  svg.setAttribute('aria-hidden', 'true');
  const path = document.createElementNS(namespace, 'path');
  path.setAttribute('d', ICONS[name] ?? ICONS.unsupported);
  svg.append(path);
  return svg;
}

/** A button with a drawing, a label (shown, or only told) and what it does. */
export function button(
  label: string,
  drawing: string | null,
  onClick: (event: MouseEvent) => void,
  options: { class?: string; quiet?: boolean; title?: string } = {}
): HTMLButtonElement {
  const element = make('button', { type: 'button', class: `c2b-button ${options.class ?? ''}`.trim() });
  if (drawing !== null) {
    element.append(icon(drawing));
  }
  if (options.quiet === true) {
    element.setAttribute('aria-label', plainText(label));
    element.title = plainText(options.title ?? label);
  } else {
    element.append(make('span', { text: label }));
    if (options.title !== undefined) {
      element.title = plainText(options.title);
    }
  }
  element.addEventListener('click', onClick);
  return element;
}

/** Run something once, some time after the last call. */
export function debounced(delayMs: number, run: () => void): () => void {
  let timer = 0;
  return () => {
    window.clearTimeout(timer);
    timer = window.setTimeout(run, delayMs);
  };
}
