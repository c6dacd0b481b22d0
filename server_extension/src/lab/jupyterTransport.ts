// Requests of JupyterLab's plugin: `ServerConnection` puts base_url, token and XSRF cookie in place.
import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';
import { Answer, answerOf, GetOptions, listen, query, RootMessage, ServiceError, Transport } from '../transport';

const PREFIX = 'caterva2';

export class JupyterTransport implements Transport {
  constructor(private readonly settings: ServerConnection.ISettings) {}

  get(path: string, options: GetOptions = {}): Promise<Answer> {
    // Jupyter would add a time stamp to every URL, which no cache survives, but for the mode `no-cache`.
    return this.request(path, { method: 'GET', cache: 'no-cache', headers: options.headers }, options);
  }

  send(method: string, path: string, body?: unknown, options: GetOptions = {}): Promise<Answer> {
    const isBytes = body instanceof Blob || body instanceof ArrayBuffer || ArrayBuffer.isView(body);
    const headers = { ...options.headers, 'Content-Type': isBytes ? 'application/octet-stream' : 'application/json' };
    const content = body === undefined ? undefined : isBytes ? (body as BodyInit) : JSON.stringify(body);
    return this.request(path, { method, headers, body: content }, options);
  }

  events(root: string, callback: (message: RootMessage) => void): () => void {
    const token = this.settings.appendToken ? this.settings.token || undefined : undefined;
    const url = query(URLExt.join(this.settings.wsUrl, PREFIX, 'api/v1/events'), { root: root || undefined, token });
    return listen(() => new this.settings.WebSocket(url) as WebSocket, root, callback);
  }

  moduleUrl(path: string): string {
    return new URL(path, new URL(URLExt.join(this.settings.baseUrl, PREFIX) + '/', window.location.href)).href;
  }

  private async request(path: string, init: RequestInit, options: GetOptions): Promise<Answer> {
    const url = `${URLExt.join(this.settings.baseUrl, PREFIX)}/${path}`;
    let response: Response;
    try {
      response = await ServerConnection.makeRequest(url, { ...init, signal: options.signal }, this.settings);
    } catch (error) {
      if (options.signal?.aborted) {
        throw options.signal.reason;
      }
      throw new ServiceError(0, 'the Jupyter server cannot be reached: check the connection, then try again');
    }
    return answerOf(response, options.onProgress, options.onLine);
  }
}
