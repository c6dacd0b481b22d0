// How the front end reaches a subscriber, whatever the host: the page and JupyterLab by HTTP, notebooks over the
// comm of a widget. Paths are relative to the subscriber's base ("api/v1/roots"). Nothing here knows what is asked for.

export interface GetOptions {
  signal?: AbortSignal;
  /** Told the part (0 to 1) of the body that has come, where its length is known. */
  onProgress?: (part: number) => void;
  /** Told each line of the body as it comes (over the comm of a widget: at its end). */
  onLine?: (line: string) => void;
  headers?: Record<string, string>;
}

export interface Answer {
  readonly status: number;
  readonly headers: { get(name: string): string | null };
  bytes(): Promise<Uint8Array<ArrayBuffer>>;
}

/** A message of `WS events`: what changed in a root, that it has to be listed again, or whether it is online. */
export interface RootMessage {
  type: 'events' | 'resync' | 'status' | 'roots';
  root: string;
  events?: { change: 'put' | 'delete'; path: string; entry?: unknown }[];
  online?: boolean;
  /** Which roots there are, as `api/v1/roots` has them: told to who listens to no root in particular. */
  roots?: unknown[];
}

export interface Transport {
  get(path: string, options?: GetOptions): Promise<Answer>;
  send(method: string, path: string, body?: unknown, options?: GetOptions): Promise<Answer>;
  /**
   * Listens to a root until the returned function is called; `resync` is sent after each gap. Without a root (`''`) to which
   * roots there are, where the host lists them.
   */
  events(root: string, callback: (message: RootMessage) => void): () => void;
  /** A URL that the browser can import a module from; left out where the browser cannot reach the service. */
  moduleUrl?(path: string): string;
}

/** An answer that is not a success; the message is the service's own sentence. */
export class ServiceError extends Error {
  constructor(
    readonly status: number,
    message: string,
    /** Name of the service's error class, as `DatasetNotFoundError`. */
    readonly error = ''
  ) {
    super(message);
  }
}

const SENTENCES: Record<number, string> = {
  0: 'the service cannot be reached: check the connection, then try again',
  401: 'not logged in, or the login has expired: log in again',
  403: 'this user may not do that',
  404: 'not found',
  413: 'that is too much at once: choose a smaller part'
};

/** The body of a successful answer. */
export async function bodyOf(answer: Answer): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = await answer.bytes();
  if (answer.status >= 200 && answer.status < 300) {
    return bytes;
  }
  let message = SENTENCES[answer.status] ?? `the service answered ${answer.status}`;
  let name = '';
  try {
    const form = JSON.parse(new TextDecoder().decode(bytes)) as { detail?: unknown; message?: unknown; error?: unknown };
    const text = form.detail ?? form.message;
    message = typeof text === 'string' && text ? text : message;
    name = typeof form.error === 'string' ? form.error : '';
  } catch {
    // Not ours (a proxy's page): the sentence for the status stays.
  }
  throw new ServiceError(answer.status, message, name);
}

export async function getJson<T>(transport: Transport, path: string, options?: GetOptions): Promise<T> {
  return JSON.parse(new TextDecoder().decode(await bodyOf(await transport.get(path, options)))) as T;
}

export async function sendJson<T>(transport: Transport, method: string, path: string, body?: unknown): Promise<T> {
  return JSON.parse(new TextDecoder().decode(await bodyOf(await transport.send(method, path, body)))) as T;
}

/** The parameters of a path: `query('api/v1/meta', {path: 'foo/x'})`; what is undefined is left out. */
export function query(path: string, parameters: Record<string, string | number | undefined>): string {
  const given = Object.entries(parameters).filter(([, value]) => value !== undefined);
  const text = given.map(([name, value]) => `${name}=${encodeURIComponent(String(value))}`).join('&');
  return text ? `${path}?${text}` : path;
}

/** A `fetch`-like answer as ours, its body read piece by piece where somebody wants to know how far it is. */
export function answerOf(
  response: Response,
  onProgress?: (part: number) => void,
  onLine?: (line: string) => void
): Answer {
  return {
    status: response.status,
    headers: response.headers,
    bytes: async () => {
      if (response.ok && response.body && onLine) {
        return readLines(response.body, onLine);
      }
      const total = Number(response.headers.get('content-length'));
      // A length is that of the compressed body where there is an encoding.
      if (!response.body || !onProgress || !total || response.headers.get('content-encoding')) {
        return new Uint8Array(await response.arrayBuffer());
      }
      const whole = new Uint8Array(total);
      const reader = response.body.getReader();
      let at = 0;
      for (;;) {
        const { done, value } = await reader.read();
        if (done) {
          if (at !== total) {
            throw new ServiceError(0, 'the answer was cut short: try again');
          }
          return whole;
        }
        whole.set(value, at);
        at += value.length;
        onProgress(at / total);
      }
    }
  };
}

async function readLines(
  body: ReadableStream<Uint8Array>,
  onLine: (line: string) => void
): Promise<Uint8Array<ArrayBuffer>> {
  const reader = body.pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array>).getReader();
  let rest = '';
  for (;;) {
    const { done, value } = await reader.read();
    const lines = (rest + (value ?? '')).split('\n');
    rest = done ? '' : lines.pop()!;
    lines.filter(Boolean).forEach(onLine);
    if (done) {
      return new Uint8Array();
    }
  }
}

/** Requests by `fetch` from a page of the same origin. */
export class FetchTransport implements Transport {
  constructor(private readonly base: string) {}

  async get(path: string, options: GetOptions = {}): Promise<Answer> {
    return this.request(path, { method: 'GET', headers: options.headers }, options);
  }

  async send(method: string, path: string, body?: unknown, options: GetOptions = {}): Promise<Answer> {
    const isBytes = body instanceof Blob || body instanceof ArrayBuffer || ArrayBuffer.isView(body);
    const headers: Record<string, string> = { 'X-XSRFToken': xsrfCookie(), ...options.headers };
    if (body !== undefined && !isBytes) {
      headers['Content-Type'] = 'application/json';
    }
    const content = body === undefined ? undefined : isBytes ? (body as BodyInit) : JSON.stringify(body);
    return this.request(path, { method, headers, body: content }, options);
  }

  events(root: string, callback: (message: RootMessage) => void): () => void {
    const url = new URL(query('api/v1/events', { root: root || undefined }), this.base);
    url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
    return listen(() => new WebSocket(url), root, callback);
  }

  moduleUrl(path: string): string {
    return new URL(path, this.base).href;
  }

  private async request(path: string, init: RequestInit, options: GetOptions): Promise<Answer> {
    let response: Response;
    try {
      response = await fetch(new URL(path, this.base), { ...init, signal: options.signal, credentials: 'same-origin' });
    } catch (error) {
      throw options.signal?.aborted ? error : new ServiceError(0, SENTENCES[0]);
    }
    return answerOf(response, options.onProgress, options.onLine);
  }
}

function xsrfCookie(): string {
  return decodeURIComponent(/(?:^|;\s*)_xsrf=([^;]+)/.exec(document.cookie)?.[1] ?? '');
}

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 20_000;

/** Keeps a WebSocket open until told not to; says `resync` after a gap, as events of that time are lost. */
export function listen(open: () => WebSocket, root: string, callback: (message: RootMessage) => void): () => void {
  let socket: WebSocket | null = null;
  let timer = 0;
  let pause = FIRST_PAUSE_MS;
  let isClosed = false;
  let wasOpen = false;
  const start = (): void => {
    socket = open();
    socket.onopen = () => {
      pause = FIRST_PAUSE_MS;
      if (wasOpen) {
        callback({ type: 'resync', root });
      }
      wasOpen = true;
    };
    socket.onmessage = event => {
      try {
        callback(JSON.parse(String(event.data)) as RootMessage);
      } catch {
        // Not JSON: not from the service.
      }
    };
    socket.onclose = () => {
      if (!isClosed) {
        timer = window.setTimeout(start, pause * (0.75 + Math.random() / 2));
        pause = Math.min(2 * pause, LONGEST_PAUSE_MS);
      }
    };
  };
  start();
  return () => {
    isClosed = true;
    window.clearTimeout(timer);
    socket?.close();
  };
}

function withLines(answer: Answer, onLine: (line: string) => void): Answer {
  return {
    ...answer,
    bytes: async () => {
      const bytes = await answer.bytes();
      if (answer.status < 300) {
        new TextDecoder().decode(bytes).split('\n').filter(Boolean).forEach(onLine);
      }
      return bytes;
    }
  };
}

/** The part of anywidget's model that is used. */
export interface WidgetModel {
  get(name: string): unknown;
  send(message: unknown): void;
  on(event: string, callback: (...parameters: never[]) => void): void;
  off(event: string, callback: (...parameters: never[]) => void): void;
}

interface CommAnswer {
  id?: number;
  status?: number;
  headers?: Record<string, string>;
  events?: string;
  message?: RootMessage;
}

/**
 * Requests over the comm of a widget, answered by the kernel: `{id, method, path, headers?, body?}` -> `{id, status, headers}`
 * and one buffer; `{id, abort: true}` ends one. `{listen: root}` and `{unlisten: root}`: messages come as
 * `{events: root, message}`.
 */
export class CommTransport implements Transport {
  private nextId = 0;
  private readonly waiting = new Map<number, (answer: Answer) => void>();
  private readonly listeners = new Map<string, Set<(message: RootMessage) => void>>();

  constructor(private readonly model: WidgetModel) {
    model.on('msg:custom', this.receive);
  }

  get(path: string, options: GetOptions = {}): Promise<Answer> {
    // A part of a file: without it the kernel would have to pass on all of it.
    const headers = options.headers ? { headers: options.headers } : {};
    return this.request({ method: 'GET', path, ...headers }, options);
  }

  send(method: string, path: string, body?: unknown, options: GetOptions = {}): Promise<Answer> {
    return this.request({ method, path, body }, options);
  }

  events(root: string, callback: (message: RootMessage) => void): () => void {
    const callbacks = this.listeners.get(root) ?? new Set();
    if (!callbacks.size) {
      this.listeners.set(root, callbacks);
      this.model.send({ listen: root });
    }
    callbacks.add(callback);
    return () => {
      callbacks.delete(callback);
      if (!callbacks.size && this.listeners.delete(root)) {
        this.model.send({ unlisten: root });
      }
    };
  }

  dispose(): void {
    this.model.off('msg:custom', this.receive);
    this.waiting.clear();
    this.listeners.clear();
  }

  private request(message: { method: string; path: string; body?: unknown; headers?: unknown }, options: GetOptions): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const signal = options.signal;
      if (signal?.aborted) {
        reject(signal.reason);
        return;
      }
      const id = ++this.nextId;
      const abort = (): void => {
        this.waiting.delete(id);
        this.model.send({ id, abort: true });
        reject(signal!.reason);
      };
      signal?.addEventListener('abort', abort, { once: true });
      this.waiting.set(id, answer => {
        signal?.removeEventListener('abort', abort);
        resolve(options.onLine ? withLines(answer, options.onLine) : answer);
      });
      this.model.send({ id, ...message });
    });
  }

  private readonly receive = (message: CommAnswer, buffers: DataView[] = []): void => {
    if (message.events !== undefined && message.message) {
      this.listeners.get(message.events)?.forEach(callback => callback(message.message!));
      return;
    }
    const resolve = message.id === undefined ? undefined : this.waiting.get(message.id);
    if (!resolve) {
      return;
    }
    this.waiting.delete(message.id!);
    const body = buffers[0];
    // A copy: buffers of comms are not aligned as typed arrays need it.
    const bytes = body ? new Uint8Array(body.buffer, body.byteOffset, body.byteLength).slice() : new Uint8Array();
    const headers = new Map(Object.entries(message.headers ?? {}).map(([name, value]) => [name.toLowerCase(), value]));
    resolve({
      status: message.status ?? 0,
      headers: { get: name => headers.get(name.toLowerCase()) ?? null },
      bytes: async () => bytes as Uint8Array<ArrayBuffer>
    });
  };
}
