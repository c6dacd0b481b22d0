// Names and texts from elsewhere, as they are shown: nothing in them turns the direction of what stands around them, hides
// a part of them or looks like another character than it is. The CLI and the terminal browser write them alike.

const UNSEEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;
const RIGHT_TO_LEFT = /[\p{Script=Hebrew}\p{Script=Arabic}\p{Script=Syriac}\p{Script=Thaana}\p{Script=Nko}\p{Script=Adlam}]/u;
const SHORT: Record<string, string> = { '\n': '\\n', '\r': '\\r', '\t': '\\t' };

function escaped(char: string): string {
  const code = char.codePointAt(0)!;
  const [letter, digits] = code < 0x100 ? ['x', 2] : code < 0x10000 ? ['u', 4] : ['U', 8];
  return SHORT[char] ?? `\\${letter}${code.toString(16).padStart(digits as number, '0')}`;
}

/** Text with control and direction characters as Python writes them: `'a\u202eb'` -> `'a\\u202eb'`. */
export function plain(text: string): string {
  return text.replace(UNSEEN, escaped);
}

/** The same of a whole text: it keeps its lines, and what `shown` made of names in it. */
export function plainText(text: string): string {
  return text.replace(UNSEEN, char => ('\n\t\u2068\u2069'.includes(char) ? char : escaped(char)));
}

/** A name to stand in a sentence or between others: plain, and kept apart where it is written from the right. */
export function shown(name: string): string {
  const text = plain(name);
  return RIGHT_TO_LEFT.test(text) ? `\u2068${text}\u2069` : text;
}

/** The same of an address or path, part by part: parts written from the right stay in their places. */
export function shownPath(path: string): string {
  return path.split('/').map(shown).join('/');
}
