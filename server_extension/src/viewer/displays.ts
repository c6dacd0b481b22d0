// Display plugins: modules that the service names for a dataset, each with `render`; see docs/displays.md.
import { Answer, getJson, GetOptions, query, Transport } from '../transport';
import { addressOf, Entry, Overview, Service, Values } from './service';

export interface DisplayInfo {
  name: string;
  title: string;
  /** Path of the module, relative to the service's base. */
  module: string;
}

/** What a display is given. */
export interface DisplayContext {
  el: HTMLElement;
  /** The entry of the dataset (docs/protocol.md) with its `address`, `ROOT/PATH`. */
  dataset: Entry & { address: string };
  /** A GET of the service, as `request('api/v1/meta?path=...', {signal})`. */
  request(path: string, options?: GetOptions): Promise<Answer>;
  /** Values of a selection of the dataset, as `values('0,:,:', {signal})`. */
  values(selection?: string, options?: GetOptions): Promise<Values>;
  /** Fewer values of a selection, at most `maxPixels` along each axis. */
  overview(options: GetOptions & { maxPixels: number; selection?: string; method?: string }): Promise<Overview>;
  /** Aborted when the display is taken away; whatever it waits for should end then. */
  signal: AbortSignal;
  theme: 'light' | 'dark';
}

type Render = (context: DisplayContext) => void | (() => void) | Promise<void | (() => void)>;

export async function displaysOf(transport: Transport, address: string, signal: AbortSignal): Promise<DisplayInfo[]> {
  const form = await getJson<{ displays: DisplayInfo[] }>(transport, query('api/v1/displays', { path: address }), { signal });
  return form.displays;
}

async function importModule(transport: Transport, path: string, signal: AbortSignal): Promise<{ render?: Render }> {
  if (transport.moduleUrl) {
    return (await import(/* @vite-ignore */ transport.moduleUrl(path))) as { render?: Render };
  }
  // In a notebook the browser may not reach the service: its text comes over the comm.
  const answer = await transport.get(path, { signal });
  if (answer.status !== 200) {
    throw new Error(`the module of this display is not there (${answer.status})`);
  }
  const url = URL.createObjectURL(new Blob([await answer.bytes()], { type: 'text/javascript' }));
  try {
    return (await import(/* @vite-ignore */ url)) as { render?: Render };
  } finally {
    URL.revokeObjectURL(url);
  }
}

/** Shows a dataset by a display; what is returned takes it away. */
export async function showDisplay(
  el: HTMLElement,
  service: Service,
  display: DisplayInfo,
  entry: Entry,
  theme: 'light' | 'dark'
): Promise<() => void> {
  const controller = new AbortController();
  const { signal } = controller;
  const address = addressOf(entry.root ?? '', entry.path);
  const version = entry.version;
  // Whatever signal a display gives, its requests end with it.
  const both = (options: GetOptions = {}): GetOptions => ({
    ...options,
    signal: options.signal ? AbortSignal.any([signal, options.signal]) : signal
  });
  const module = await importModule(service.transport, display.module, signal);
  if (typeof module.render !== 'function') {
    throw new Error(`the module of display ${display.name} has no function render`);
  }
  const cleanUp = await module.render({
    el,
    dataset: { ...entry, address },
    request: (path, options) => service.transport.get(path, both(options)),
    values: (selection, options) => service.values(address, selection, { ...both(options), version }),
    overview: options => service.overview(address, { ...options, ...both(options), version }),
    signal,
    theme
  });
  return () => {
    controller.abort(new DOMException('the display was taken away', 'AbortError'));
    cleanUp?.();
    el.replaceChildren();
  };
}
