// H5Web calls axes D0, D1, ... and lets nobody say otherwise. Here arrays of dimensions that know their names (`names`, see
// src/viewer/provider.ts) give them to sliders, buttons and plots, and each slider has a box that takes a number. A build
// fails when H5Web's text is not the one that is looked for.
import { fileURLToPath } from 'node:url';

const BOX = fileURLToPath(new URL('../src/viewer/positionBox.tsx', import.meta.url));

const LIB = [
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

// The plots that are made for one dataset: their `dims` come from it. NeXus plots say themselves what their axes are.
const APP = [
  [/(function Jo\(e\) \{\s*let \{ dataset: t, value: n, dimMapping: r, axisLabels: i = )\[\]/, '$1 t.shape.dims.names ?? []'],
  [/(let \{ dataset: t, value: n, valueLabel: r, [^;]*?dimMapping: u, axisLabels: d = )\[\]/, '$1 t.shape.dims.names ?? []'],
  [/(let \{ value: t, dims: n, dimMapping: r, axisLabels: i = )\[\]/, '$1 n.names ?? []'],
  [/(let \{ value: t, valueLabel: n, [^;]*?dims: c, dimMapping: l, axisLabels: u = )\[\]/, '$1 c.names ?? []'],
  [/(let \{ value: t, dataset: n, [^;]*?axisLabels: r = |let \{ dataset: t, value: n, axisLabels: r = )\[\]/, '$1 t.shape.dims.names ?? []']
];

function replaced(code, replacements, what) {
  for (const [pattern, text] of replacements) {
    if (!pattern.test(code)) {
      throw new Error(`${what} has another text than was expected: ${pattern}`);
    }
    code = code.replace(pattern, text);
  }
  return code;
}

export const namedDimensions = () => ({
  name: 'named-dimensions',
  enforce: 'pre',
  transform(code, id) {
    if (id.endsWith('/@h5web/lib/dist/index.js')) {
      return { code: `import { PositionBox } from ${JSON.stringify(BOX)};\n${replaced(code, LIB, '@h5web/lib')}`, map: null };
    }
    if (id.endsWith('/@h5web/app/dist/index.js')) {
      return { code: replaced(code, APP, '@h5web/app'), map: null };
    }
    return null;
  }
});
