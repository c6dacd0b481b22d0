export type { Browser, BrowserHost, BrowserOptions } from './browser';
export { mountBrowser } from './browser';
export type { CodeVariant } from './code';
export { CODE_VARIANTS } from './code';
export { explain } from './failures';
export { mountState } from './state';
export { Service } from './service';
