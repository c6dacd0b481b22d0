// What H5Web leaves nobody to choose. It calls axes D0, D1, ...: here arrays of dimensions that know their names (`names`, see
// src/viewer/provider.ts) give them to sliders, buttons and plots, and each slider has a box that takes a number. Of a group
// without a plot it shows a sentence: here it shows what is in it. A build fails when H5Web's text is not the one that is
// looked for.
import { fileURLToPath } from 'node:url';

const source = name => JSON.stringify(fileURLToPath(new URL(`../src/viewer/${name}.tsx`, import.meta.url)));

const LIB = [
  // Tabs are selected, not checked.
  [/"aria-checked": n === c,/, '[s === "tablist" ? "aria-selected" : "aria-checked"]: n === c,'],
  // AxisMapper, SliceSlider and DimensionMapper, in the order of the file.
  [/let \{ axis: t, dimHints: n, dimMapping: r, onChange: i \} = e,/, 'let { axis: t, dimHints: n, dimNames: names, dimMapping: r, onChange: i } = e,'],
  [/label: `D\$\{t\}`,/, 'label: names?.[t] ?? `D${t}`,'],
  [/let \{ dimension: t, length: n, initialValue: r, isFastSlice: i, onChange: a \} = e;/, 'let { dimension: t, name, length: n, initialValue: r, isFastSlice: i, onChange: a } = e;'],
  [/children: \["D", t\]/, 'title: name, children: name ?? ["D", t]'],
  [/(children: \["0:", n - 1\]\s*\}\),)/, '$1 n > 1 ? S(PositionBox, { labelledBy: d, value: o, length: n, onChange: (e) => { s(e); c(e); } }) : null,'],
  [/axis: "x",\s*dimHints: r,/, 'axis: "x", dimNames: n.names, dimHints: r,'],
  [/axis: "y",\s*dimHints: r,/, 'axis: "y", dimNames: n.names, dimHints: r,'],
  [/dimension: t,\s*length: n\[t\],/, 'dimension: t, name: n.names?.[t], length: n[t],']
];

const STYLE = [[/\[aria-checked=true\]/g, ':is([aria-checked=true],[data-raised][aria-selected=true])']];

const APP = [
  // The place of the plot, and where that is filled.
  [/(function Tc\(e\) \{\s*let \{ path: t)( \}.*?if \(!i\) return )\/\* @__PURE__ \*\/ A\("div", \{\s*className: W\.fallback,.*?\n\t\}\);/s,
    '$1, onSelect: select$2k(Contents, { entity: n.get(t), onSelect: select });'],
  [/k\(Tc, \{ path: o \}\)/, 'k(Tc, { path: o, onSelect: d })'],
  // The plots that are made for one dataset: their `dims` come from it. NeXus plots say themselves what their axes are.
  [/(function Jo\(e\) \{\s*let \{ dataset: t, value: n, dimMapping: r, axisLabels: i = )\[\]/, '$1 t.shape.dims.names ?? []'],
  [/(let \{ dataset: t, value: n, valueLabel: r, [^;]*?dimMapping: u, axisLabels: d = )\[\]/, '$1 t.shape.dims.names ?? []'],
  [/(let \{ value: t, dims: n, dimMapping: r, axisLabels: i = )\[\]/, '$1 n.names ?? []'],
  [/(let \{ value: t, valueLabel: n, [^;]*?dims: c, dimMapping: l, axisLabels: u = )\[\]/, '$1 c.names ?? []'],
  [/(let \{ value: t, dataset: n, [^;]*?axisLabels: r = |let \{ dataset: t, value: n, axisLabels: r = )\[\]/, '$1 t.shape.dims.names ?? []']
];

function replaced(code, replacements, what) {
  for (const [pattern, text] of replacements) {
    if (code.search(pattern) < 0) {
      throw new Error(`${what} has another text than was expected: ${pattern}`);
    }
    code = code.replace(pattern, text);
  }
  return code;
}

export const adaptedH5Web = () => ({
  name: 'adapted-h5web',
  enforce: 'pre',
  transform(code, id) {
    if (id.endsWith('/@h5web/lib/dist/index.js')) {
      return { code: `import { PositionBox } from ${source('positionBox')};\n${replaced(code, LIB, '@h5web/lib')}`, map: null };
    }
    if (id.endsWith('/@h5web/app/dist/index.js')) {
      return { code: `import { Contents } from ${source('contents')};\n${replaced(code, APP, '@h5web/app')}`, map: null };
    }
    if (id.includes('/@h5web/app/dist/styles.css')) {
      return { code: replaced(code, STYLE, "H5Web's style"), map: null };
    }
    return null;
  }
});
