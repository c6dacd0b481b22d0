/** What went wrong, as a sentence with its cure. */

import { ServiceError } from '../transport';

export interface Explanation {
  title: string;
  cure: string;
  /** Is there any sense in trying again? */
  retry: boolean;
}

/** Was it given up, by the user or for a newer request? */
export function isAbort(error: unknown): boolean {
  return (error as { name?: string } | null)?.name === 'AbortError';
}

/** Of every error one sentence, and what to do about it. */
export function explain(error: unknown): Explanation {
  if (!(error instanceof ServiceError) && typeof (error as ServiceError | null)?.status !== 'number') {
    const text = error instanceof Error ? error.message : String(error);
    return { title: 'Something in this page failed.', cure: `Reload it, and report this: ${text}`, retry: true };
  }
  // Not by its class alone: other bundles have one of the same form.
  const { status, message: detail, error: kind = '' } = error as ServiceError;
  const said = detail.trim().replace(/^\p{Ll}/u, letter => letter.toUpperCase()).replace(/([^.?!])$/, '$1.');
  switch (true) {
    case status === 0:
      return {
        title: 'The server does not answer.',
        cure: 'Check that it is running and that this machine is online; this goes on by itself as soon as it is back.',
        retry: true
      };
    case status === 404 && kind === '':
      return {
        title: 'Server part not found.',
        cure: "Run pip install 'caterva2-jupyter[lab]' in the environment that runs Jupyter (not only the kernel's), then restart Jupyter.",
        retry: true
      };
    case status === 401:
      return { title: 'You are not logged in, or your login has expired.', cure: 'Reload the page and log in again.', retry: true };
    case status === 403:
      return {
        title: 'You may not do this here.',
        cure: `${said || 'The server refuses.'} Reload the page to renew your session; if it stays so, ask whoever runs this server for the right.`,
        retry: true
      };
    case status === 404:
      return { title: 'It is not there (any more).', cure: `${said} Refresh the list.`, retry: true };
    case status === 409:
      return { title: 'That cannot be done as things are now.', cure: said, retry: true };
    case status === 413:
      return {
        title: 'That is too much at once.',
        cure: `${said} Ask for a smaller part, or use “Insert code” and read slices of it in a notebook.`,
        retry: false
      };
    case status === 429:
      return { title: 'Too many requests at once.', cure: 'Wait a moment, then try again.', retry: true };
    case kind === 'NotCachedError':
      return {
        title: 'It is offline, and not all of it is kept here.',
        cure: `${said} It can be read again as soon as its publisher is back.`,
        retry: true
      };
    case status === 422:
      return { title: 'It cannot be shown.', cure: said, retry: false };
    case status === 503 || status === 502 || status === 504:
      return {
        title: detail.startsWith('the subscriber is not running') ? 'The server part is not running.' : 'It is offline.',
        cure: said || 'Check that the publisher and the broker are running, then try again.',
        retry: true
      };
    default:
      return { title: `The server answered with status ${status}.`, cure: said || "Look at the server's log.", retry: true };
  }
}

/** The same as one text; of errors that are ours, what they say. */
export function sentence(error: unknown): string {
  if (typeof (error as { status?: unknown } | null)?.status !== 'number') {
    return error instanceof Error ? error.message : String(error);
  }
  const { title, cure } = explain(error);
  return `${title} ${cure}`;
}
