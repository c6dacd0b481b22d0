// Markdown as DOM nodes: headings, paragraphs, lists, quotes, code, rules, emphasis and links. Every text becomes a
// text node; there is no way from the source to markup, attributes or scripts. Links open outside, images are named only.

const SAFE_LINK = /^https?:\/\/[^\s]+$/i;

/** The nodes of a Markdown text. */
export function markdownNodes(source: string, doc: Document = document): DocumentFragment {
  const out = doc.createDocumentFragment();
  const lines = source.replaceAll('\r\n', '\n').split('\n');
  const element = (name: string, text = ''): HTMLElement => {
    const made = doc.createElement(name);
    inline(made, text, doc);
    return made;
  };
  let at = 0;
  while (at < lines.length) {
    const line = lines[at];
    const fence = /^(```+|~~~+)/.exec(line);
    const heading = /^(#{1,6})\s+(.*?)\s*#*$/.exec(line);
    if (fence) {
      const stop = lines.findIndex((l, i) => i > at && l.startsWith(fence[1]));
      const end = stop < 0 ? lines.length : stop;
      const pre = doc.createElement('pre');
      pre.textContent = lines.slice(at + 1, end).join('\n');
      out.append(pre);
      at = end + 1;
    } else if (heading) {
      out.append(element(`h${heading[1].length}`, heading[2]));
      at += 1;
    } else if (/^\s*([-*_])(\s*\1){2,}\s*$/.test(line)) {
      out.append(doc.createElement('hr'));
      at += 1;
    } else if (/^>/.test(line)) {
      const quoted = take(lines, at, l => l.startsWith('>'));
      const quote = doc.createElement('blockquote');
      quote.textContent = quoted.map(l => l.replace(/^>\s?/, '')).join('\n');
      out.append(quote);
      at += quoted.length;
    } else if (ITEM.test(line)) {
      const items = take(lines, at, l => ITEM.test(l) || /^\s{2,}\S/.test(l));
      const list = doc.createElement(/^\s*\d/.test(line) ? 'ol' : 'ul');
      for (const item of items) {
        if (ITEM.test(item)) {
          list.append(element('li', item.replace(ITEM, '')));
        } else if (list.lastElementChild) {
          inline(list.lastElementChild, ` ${item.trim()}`, doc);
        }
      }
      out.append(list);
      at += items.length;
    } else if (line.includes('|') && /^\s*\|?\s*:?-+/.test(lines[at + 1] ?? '')) {
      const rows = take(lines, at, l => l.includes('|'));
      out.append(table(rows, doc));
      at += rows.length;
    } else if (line.trim()) {
      const text = take(lines, at, l => Boolean(l.trim()) && !/^(#{1,6}\s|>|```|~~~)/.test(l) && !ITEM.test(l));
      out.append(element('p', (text.length ? text : [line]).join('\n')));
      at += Math.max(text.length, 1);
    } else {
      at += 1;
    }
  }
  return out;
}

const ITEM = /^\s*(?:[-*+]|\d{1,9}[.)])\s+/;

function take(lines: string[], from: number, isIn: (line: string) => boolean): string[] {
  const stop = lines.findIndex((line, i) => i >= from && !isIn(line));
  return lines.slice(from, stop < 0 ? undefined : stop);
}

function table(rows: string[], doc: Document): HTMLElement {
  const made = doc.createElement('table');
  rows.forEach((row, i) => {
    if (i === 1) {
      return;
    }
    const line = doc.createElement('tr');
    for (const cell of row.trim().replace(/^\||\|$/g, '').split('|')) {
      const item = doc.createElement(i === 0 ? 'th' : 'td');
      inline(item, cell.trim(), doc);
      line.append(item);
    }
    made.append(line);
  });
  return made;
}

// One alternative per form; each ends at its first closing mark, so that no text takes long.
const INLINE = /`([^`\n]+)`|\*\*([^*\n]+)\*\*|\*([^*\s][^*\n]*)\*|!?\[([^\]\n]*)\]\(([^)\s]*)\)|<(https?:\/\/[^>\s]+)>/g;

function inline(parent: Element, text: string, doc: Document): void {
  let at = 0;
  for (const match of text.matchAll(INLINE)) {
    parent.append(text.slice(at, match.index));
    at = match.index + match[0].length;
    const [whole, code, strong, emphasis, label, target, bare] = match;
    const url = bare ?? target;
    if (url !== undefined) {
      if (!whole.startsWith('!') && SAFE_LINK.test(url)) {
        const link = doc.createElement('a');
        link.href = url;
        link.rel = 'noopener noreferrer nofollow';
        link.target = '_blank';
        link.textContent = label || url;
        parent.append(link);
      } else {
        parent.append(whole.startsWith('!') ? `[image: ${label}]` : label || url);
      }
      continue;
    }
    const made = doc.createElement(code !== undefined ? 'code' : strong !== undefined ? 'strong' : 'em');
    made.textContent = code ?? strong ?? emphasis;
    parent.append(made);
  }
  parent.append(text.slice(at));
}
