// Three orthogonal planes of a volume: each panel shows one plane and, as crossed lines, where the two others cut it.
// A click or the arrow keys in a panel move them. Only planes that changed are asked for, the newest of each alone.
import { plain } from '../text';
import type { DisplayContext } from '../viewer/displays';

const MAX_PIXELS = 1024;
const AXES = [0, 1, 2] as const;
const PAUSE_MS = 60;

interface Plane {
  data: ArrayLike<number>;
  height: number;
  width: number;
}

/** The axes of a panel's rows and columns. */
const across = (axis: number): [number, number] => (axis === 0 ? [1, 2] : axis === 1 ? [0, 2] : [0, 1]);

class Tomography {
  private readonly shape: number[];
  private readonly names: string[];
  private readonly at: number[];
  private readonly planes: (Plane | null)[] = [null, null, null];
  private readonly waiting: (AbortController | null)[] = [null, null, null];
  private readonly timers = [0, 0, 0];
  private readonly canvases: HTMLCanvasElement[] = [];
  private readonly sliders: HTMLInputElement[] = [];
  private readonly numbers: HTMLInputElement[] = [];
  private readonly status = document.createElement('p');
  private readonly readout = document.createElement('output');
  private low = 0;
  private high = 1;
  private least = Infinity;
  private greatest = -Infinity;
  private lowSlider!: HTMLInputElement;
  private highSlider!: HTMLInputElement;
  private isAuto = true;

  constructor(private readonly context: DisplayContext) {
    this.shape = context.dataset.geometry!.shape;
    this.names = context.dataset.dims?.map(plain) ?? AXES.map(axis => `D${axis}`);
    this.at = this.shape.map(n => Math.floor(n / 2));
    this.draw();
    AXES.forEach(axis => void this.load(axis));
  }

  dispose(): void {
    this.timers.forEach(timer => window.clearTimeout(timer));
    this.waiting.forEach(controller => controller?.abort());
  }

  // -- what is there ---------------------------------------------------------------------------------------------

  private draw(): void {
    const root = make('div', 'c2t');
    root.dataset.theme = this.context.theme;
    const style = document.createElement('style');
    style.textContent = STYLE;
    const panels = make('div', 'c2t-panels');
    for (const axis of AXES) {
      panels.append(this.panel(axis));
    }
    this.status.setAttribute('role', 'status');
    this.readout.className = 'c2t-readout';
    root.append(style, panels, this.contrast(), this.readout, this.status);
    this.context.el.append(root);
  }

  private panel(axis: number): HTMLElement {
    const name = this.names[axis];
    const [rows, columns] = across(axis).map(other => this.names[other]);
    const panel = make('section', 'c2t-panel');
    panel.setAttribute('aria-label', `Plane across ${name}`);
    const heading = make('h2', '');
    heading.textContent = `${rows} × ${columns}`;
    const canvas = document.createElement('canvas');
    canvas.tabIndex = 0;
    canvas.setAttribute('role', 'img');
    canvas.setAttribute('aria-label', `Plane of ${rows} and ${columns}; arrow keys move the cross`);
    canvas.onpointerdown = event => {
      canvas.setPointerCapture(event.pointerId);
      this.point(axis, event);
    };
    canvas.onpointermove = event => {
      if (canvas.hasPointerCapture(event.pointerId)) {
        this.point(axis, event);
      }
    };
    canvas.onkeydown = event => this.key(axis, event);
    this.canvases[axis] = canvas;
    const label = make('label', 'c2t-slice');
    const text = make('span', '');
    text.textContent = name;
    const slider = range(`Position along ${name}`, 0, this.shape[axis] - 1, 1, this.at[axis]);
    slider.oninput = () => this.move(axis, Number(slider.value));
    const number = document.createElement('input');
    number.type = 'number';
    number.min = '0';
    number.max = String(this.shape[axis] - 1);
    number.value = String(this.at[axis]);
    number.setAttribute('aria-label', `Index along ${name}`);
    number.onchange = () => this.move(axis, Number(number.value));
    this.sliders[axis] = slider;
    this.numbers[axis] = number;
    label.append(text, slider, number);
    panel.append(heading, canvas, label);
    return panel;
  }

  private contrast(): HTMLElement {
    const box = make('fieldset', 'c2t-contrast');
    const legend = document.createElement('legend');
    legend.textContent = 'Contrast';
    this.lowSlider = range('Darkest value', 0, 1000, 1, 0);
    this.highSlider = range('Brightest value', 0, 1000, 1, 1000);
    const change = (): void => {
      this.isAuto = false;
      const span = this.greatest - this.least;
      this.low = this.least + (span * Number(this.lowSlider.value)) / 1000;
      this.high = this.least + (span * Number(this.highSlider.value)) / 1000;
      AXES.forEach(axis => this.paint(axis));
    };
    this.lowSlider.oninput = change;
    this.highSlider.oninput = change;
    const auto = document.createElement('button');
    auto.type = 'button';
    auto.textContent = 'Whole range';
    auto.onclick = () => {
      this.isAuto = true;
      this.lowSlider.value = '0';
      this.highSlider.value = '1000';
      this.scale();
      AXES.forEach(axis => this.paint(axis));
    };
    box.append(legend, this.lowSlider, this.highSlider, auto);
    return box;
  }

  // -- moving ----------------------------------------------------------------------------------------------------

  private move(axis: number, to: number): void {
    const position = Math.max(0, Math.min(this.shape[axis] - 1, Math.round(to) || 0));
    this.sliders[axis].value = String(position);
    this.numbers[axis].value = String(position);
    if (position === this.at[axis]) {
      return;
    }
    this.at[axis] = position;
    AXES.forEach(other => this.paint(other));
    // The plane across this axis is another one now; the two others only get their lines elsewhere.
    window.clearTimeout(this.timers[axis]);
    this.timers[axis] = window.setTimeout(() => void this.load(axis), PAUSE_MS);
  }

  private point(axis: number, event: PointerEvent): void {
    const canvas = this.canvases[axis];
    const box = canvas.getBoundingClientRect();
    const [rows, columns] = across(axis);
    this.move(rows, Math.floor(((event.clientY - box.top) / box.height) * this.shape[rows]));
    this.move(columns, Math.floor(((event.clientX - box.left) / box.width) * this.shape[columns]));
  }

  private key(axis: number, event: KeyboardEvent): void {
    const [rows, columns] = across(axis);
    const moves: Record<string, [number, number]> = {
      ArrowUp: [rows, -1],
      ArrowDown: [rows, 1],
      ArrowLeft: [columns, -1],
      ArrowRight: [columns, 1],
      PageUp: [axis, 1],
      PageDown: [axis, -1]
    };
    const found = moves[event.key];
    if (found) {
      event.preventDefault();
      this.move(found[0], this.at[found[0]] + found[1] * (event.shiftKey ? 10 : 1));
    }
  }

  // -- values ----------------------------------------------------------------------------------------------------

  private async load(axis: number): Promise<void> {
    this.waiting[axis]?.abort();
    const controller = new AbortController();
    this.waiting[axis] = controller;
    const { signal } = controller;
    const selection = AXES.map(other => (other === axis ? String(this.at[axis]) : ':')).join(',');
    const [rows, columns] = across(axis);
    const isLarge = Math.max(this.shape[rows], this.shape[columns]) > MAX_PIXELS;
    this.canvases[axis].setAttribute('aria-busy', 'true');
    try {
      const values = isLarge
        ? await this.context.overview({ selection, maxPixels: MAX_PIXELS, method: 'stride', signal })
        : await this.context.values(selection, { signal });
      if (signal.aborted) {
        return;
      }
      const [height, width] = values.shape.slice(-2);
      this.planes[axis] = { data: numbersOf(values.data), height, width };
      this.extend(this.planes[axis]!.data);
      this.say('');
      this.canvases[axis].dataset.position = String(this.at[axis]);
      this.canvases[axis].removeAttribute('aria-busy');
      AXES.forEach(other => this.paint(other));
    } catch (error) {
      if (!signal.aborted && !this.context.signal.aborted) {
        this.canvases[axis].removeAttribute('aria-busy');
        this.say(error instanceof Error ? error.message : String(error));
      }
    }
  }

  private say(text: string): void {
    this.status.textContent = text;
  }

  private extend(data: ArrayLike<number>): void {
    for (let i = 0; i < data.length; i++) {
      const value = data[i];
      if (value < this.least && value > -Infinity) {
        this.least = value;
      }
      if (value > this.greatest && value < Infinity) {
        this.greatest = value;
      }
    }
    this.scale();
  }

  private scale(): void {
    if (this.isAuto) {
      this.low = this.least;
      this.high = this.greatest;
    }
  }

  // -- painting --------------------------------------------------------------------------------------------------

  private paint(axis: number): void {
    const plane = this.planes[axis];
    const canvas = this.canvases[axis];
    const [rows, columns] = across(axis);
    const surface = canvas.getContext('2d');
    if (!plane || !surface) {
      return;
    }
    canvas.width = plane.width;
    canvas.height = plane.height;
    // Long sides fill the panel; a thin volume stays thin.
    canvas.style.aspectRatio = `${this.shape[columns]} / ${this.shape[rows]}`;
    const image = surface.createImageData(plane.width, plane.height);
    const span = this.high - this.low || 1;
    for (let i = 0; i < plane.data.length; i++) {
      const value = plane.data[i];
      const grey = Math.max(0, Math.min(255, Math.round((255 * (value - this.low)) / span)));
      // What is no number is a hole.
      image.data.set(Number.isNaN(value) ? [0, 0, 0, 0] : [grey, grey, grey, 255], 4 * i);
    }
    surface.putImageData(image, 0, 0);
    surface.fillStyle = '#e69f00';
    const y = Math.floor(((this.at[rows] + 0.5) * plane.height) / this.shape[rows]);
    const x = Math.floor(((this.at[columns] + 0.5) * plane.width) / this.shape[columns]);
    surface.globalAlpha = 0.7;
    surface.fillRect(0, y, plane.width, 1);
    surface.fillRect(x, 0, 1, plane.height);
    surface.globalAlpha = 1;
    this.tell();
  }

  /** The value where all three planes meet. */
  private tell(): void {
    const plane = this.planes[0];
    const where = this.at.map((position, axis) => `${this.names[axis]} ${position}`).join(', ');
    const [rows, columns] = across(0);
    const isWhole = plane && plane.height === this.shape[rows] && plane.width === this.shape[columns];
    const isHere = this.canvases[0].dataset.position === String(this.at[0]);
    const value = isWhole && isHere ? plane.data[this.at[rows] * plane.width + this.at[columns]] : undefined;
    this.readout.textContent = value === undefined ? where : `${where}: ${value}`;
  }
}

/** 64-bit integers as the nearest numbers that can be drawn. */
function numbersOf(data: ArrayLike<unknown>): ArrayLike<number> {
  return typeof data[0] === 'bigint' ? Float64Array.from(data as ArrayLike<bigint>, Number) : (data as ArrayLike<number>);
}

function make(name: string, className: string): HTMLElement {
  const made = document.createElement(name);
  made.className = className;
  return made;
}

function range(label: string, min: number, max: number, step: number, value: number): HTMLInputElement {
  const made = document.createElement('input');
  made.type = 'range';
  made.min = String(min);
  made.max = String(max);
  made.step = String(step);
  made.value = String(value);
  made.setAttribute('aria-label', label);
  return made;
}

const STYLE = `
.c2t { height: 100%; overflow: auto; padding: 8px; box-sizing: border-box; font: 13px/1.4 system-ui, sans-serif; color: #222; }
.c2t[data-theme='dark'] { color: #ddd; }
.c2t-panels { display: flex; flex-wrap: wrap; gap: 12px; }
.c2t-panel { flex: 1 1 260px; min-width: 0; max-width: 560px; }
.c2t-panel h2 { font-size: 13px; margin: 0 0 4px; }
.c2t-panel canvas { display: block; width: 100%; max-height: 60vh; image-rendering: pixelated; background: #8883; cursor: crosshair; }
.c2t-panel canvas[aria-busy] { opacity: .6; }
.c2t-panel canvas:focus-visible { outline: 2px solid #2b73b7; outline-offset: 1px; }
.c2t-slice { display: flex; align-items: center; gap: 6px; margin-top: 4px; }
.c2t-slice input[type=range] { flex: 1; min-width: 60px; }
.c2t-slice input[type=number] { width: 6em; font: inherit; }
.c2t-contrast { display: flex; flex-wrap: wrap; gap: 8px; align-items: center; margin: 10px 0 4px; border: 1px solid #8886; }
.c2t-contrast input { flex: 1 1 120px; max-width: 260px; }
.c2t-readout { font-family: ui-monospace, monospace; }`;

/** What the viewer calls, see docs/displays.md. */
export function render(context: DisplayContext): () => void {
  const tomography = new Tomography(context);
  return () => tomography.dispose();
}
