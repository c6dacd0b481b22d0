// The tree of the browser in notebooks: rows that the kernel sends, drawn as text, worked by mouse or keys. It lists nothing itself.

const STYLE = `
.c2-tree { border: 1px solid var(--jp-border-color2, #ccc); border-radius: 3px; overflow: auto; padding: 2px 0;
  font: var(--jp-ui-font-size1, 13px) var(--jp-ui-font-family, system-ui, sans-serif); line-height: 1.65;
  color: var(--jp-ui-font-color1, #222); background: var(--jp-layout-color1, #fff); }
.c2-tree:focus-within { border-color: var(--jp-brand-color1, #2196f3); }
.c2-row { display: flex; align-items: baseline; gap: .4em; padding: 0 .5em; cursor: default; white-space: nowrap; outline: none; }
.c2-row:hover { background: var(--jp-layout-color2, #f3f3f3); }
.c2-row[aria-selected='true'] { background: var(--jp-brand-color3, #c5e3fb); }
[data-jp-theme-light='false'] .c2-row[aria-selected='true'] { background: var(--jp-layout-color3, #414141); }
.c2-row:focus-visible { box-shadow: inset 0 0 0 2px var(--jp-brand-color1, #2196f3); }
.c2-mark { flex: none; width: 1em; text-align: center; color: var(--jp-ui-font-color2, #666); }
.c2-icon { flex: none; width: 1.1em; text-align: center; color: var(--jp-brand-color1, #2f7fb8); }
.c2-name { flex: 0 1 auto; overflow: hidden; text-overflow: ellipsis; }
.c2-detail { flex: 0 8 auto; min-width: 3em; margin-left: auto; padding-left: .6em; overflow: hidden; text-overflow: ellipsis;
  font-size: .85em; color: var(--jp-ui-font-color2, #666); }
.c2-row[data-kind='root'] .c2-name { font-weight: 600; }
.c2-row[data-kind='message'], .c2-row[data-kind='more'] { font-style: italic; color: var(--jp-ui-font-color2, #666); }
.c2-row[data-kind='more'] { cursor: pointer; }
`;

const ICONS = { root: '◈', group: '▤', array: '▦', file: '☰', link: '↪', unsupported: '⊘' };

function span(className, text) {
  const made = document.createElement('span');
  made.className = className;
  made.textContent = text;
  return made;
}

function render({ model, el }) {
  const style = document.createElement('style');
  style.textContent = STYLE;
  const tree = document.createElement('div');
  tree.className = 'c2-tree';
  tree.setAttribute('role', 'tree');
  tree.setAttribute('aria-label', 'Datasets');
  tree.style.height = `${model.get('height')}px`;
  el.append(style, tree);
  const id = row => `${row.kind === 'more' ? 'more' : 'row'} ${row.key}`;
  let focused = '';
  let typed = '';
  let typedAt = 0;

  const rows = () => model.get('rows');
  const elements = () => [...tree.children];

  function draw() {
    const hadFocus = tree.contains(document.activeElement);
    const scrolled = tree.scrollTop;
    const selected = model.get('selected');
    const drawn = rows().map(row => {
      const item = document.createElement('div');
      item.className = 'c2-row';
      item.dataset.kind = row.kind;
      item.dataset.id = id(row);
      item.style.paddingLeft = `${0.4 + 1.1 * (row.level - 1)}em`;
      item.setAttribute('role', 'treeitem');
      item.setAttribute('aria-level', String(row.level));
      item.setAttribute('aria-label', row.detail ? `${row.name}, ${row.detail}` : row.name);
      item.setAttribute('aria-selected', String(row.kind !== 'more' && row.key !== '' && row.key === selected));
      if (typeof row.open === 'boolean') {
        item.setAttribute('aria-expanded', String(row.open));
      }
      item.tabIndex = -1;
      item.title = row.name;
      item.append(
        span('c2-mark', typeof row.open === 'boolean' ? (row.open ? '▾' : '▸') : ''),
        span('c2-icon', ICONS[row.kind] ?? ''),
        span('c2-name', row.name),
        span('c2-detail', row.detail)
      );
      return item;
    });
    tree.replaceChildren(...drawn);
    tree.scrollTop = scrolled;
    const current = drawn.find(item => item.dataset.id === focused) ?? drawn[0];
    if (current) {
      current.tabIndex = 0;
      if (hadFocus) {
        current.focus({ preventScroll: true });
      }
    }
  }

  function focus(number) {
    const all = elements();
    const item = all[Math.max(0, Math.min(all.length - 1, number))];
    if (!item) {
      return;
    }
    all.forEach(other => (other.tabIndex = -1));
    item.tabIndex = 0;
    focused = item.dataset.id;
    item.focus();
    item.scrollIntoView({ block: 'nearest' });
  }

  function act(number, toggles) {
    const row = rows()[number];
    if (!row || row.kind === 'message') {
      return;
    }
    if (row.kind === 'more') {
      // The page that comes takes this row's place: go on at its first.
      const before = rows()[number - 1];
      focused = before ? id(before) : '';
      model.send({ more: row.key });
      return;
    }
    model.send(toggles && typeof row.open === 'boolean' ? { select: row.key, toggle: row.key } : { select: row.key });
  }

  const numberOf = target => elements().indexOf(target.closest('.c2-row'));

  tree.addEventListener('click', event => {
    const number = numberOf(event.target);
    if (number >= 0) {
      focus(number);
      act(number, true);
    }
  });

  tree.addEventListener('keydown', event => {
    const number = numberOf(event.target);
    const row = rows()[number];
    if (!row || event.ctrlKey || event.metaKey || event.altKey) {
      return;
    }
    const move = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -1e9, End: 1e9 }[event.key];
    if (move) {
      focus(number + move);
    } else if (event.key === 'ArrowRight') {
      if (row.open === false) {
        act(number, true);
      } else if (row.open) {
        focus(number + 1);
      }
    } else if (event.key === 'ArrowLeft') {
      if (row.open) {
        act(number, true);
      } else {
        let above = number;
        while (above > 0 && rows()[above].level >= row.level) {
          above -= 1;
        }
        focus(above);
      }
    } else if (event.key === 'Enter' || event.key === ' ') {
      act(number, true);
    } else if (event.key.length === 1) {
      typed = event.timeStamp - typedAt > 700 ? event.key : typed + event.key;
      typedAt = event.timeStamp;
      const wanted = typed.toLowerCase();
      const found = rows().findIndex((other, n) => n >= number && other.name.toLowerCase().startsWith(wanted));
      focus(found >= 0 ? found : rows().findIndex(other => other.name.toLowerCase().startsWith(wanted)));
    } else {
      return;
    }
    // JupyterLab has shortcuts of its own for most keys.
    event.preventDefault();
    event.stopPropagation();
  });

  draw();
  model.on('change:rows', draw);
  model.on('change:selected', draw);
  return () => {
    model.off('change:rows', draw);
    model.off('change:selected', draw);
  };
}

export default { render };
