/** Lines of Python that open what is selected: no token, no address of a server in them. */

import { plain } from '../text';
import type { DtypeForm } from './format';
import { itemNbytes, product } from './format';

export type CodeVariant = 'array' | 'xarray' | 'dask';

export const CODE_VARIANTS: readonly { id: CodeVariant; label: string }[] = [
  { id: 'array', label: 'Array' },
  { id: 'xarray', label: 'xarray' },
  { id: 'dask', label: 'dask' }
];

export interface CodeTarget {
  /** `ROOT/PATH` */
  address: string;
  kind: string;
  shape?: readonly number[];
  dtype?: DtypeForm;
}

/** Read at once below this; above it the line shows a slice. */
const SMALL_NBYTES = 8 << 20;

const KEYWORDS = new Set(
  (
    'False None True and as assert async await break class continue def del elif else except finally for from global ' +
    'if import in is lambda nonlocal not or pass raise return try while with yield ' +
    'cat2 client xr da np print open list dict set str int float bytes type len range sum min max abs map filter'
  ).split(' ')
);

/** A Python string literal; nothing in a name can end it, or show it as another one. */
export function pythonText(text: string): string {
  return `"${plain(text.replace(/["\\]/g, '\\$&'))}"`;
}

/** A variable's name made of the last part of a path. */
export function variableName(address: string): string {
  const last = address.split('/').pop() ?? '';
  const stem = last.replace(/\.(b2nd|b2frame|b2|h5|hdf5|nc|nc4|nxs)$/i, '');
  let name = stem.normalize('NFKD').replace(/[^A-Za-z0-9_]+/g, '_').replace(/^_+|_+$/g, '').slice(0, 40);
  if (/^\d/.test(name)) {
    name = `a${name}`;
  }
  return name === '' || KEYWORDS.has(name) ? `${name === '' ? 'array' : name}_` .replace(/^array_$/, 'array') : name;
}

/** Some index that reads little: the first plane of a cube, the first thousand items of a vector. */
function sampleKey(shape: readonly number[]): string {
  const key = shape.map((length, axis) => {
    if (axis < shape.length - 2) {
      return '0';
    }
    return length > 1000 ? ':1000' : ':';
  });
  return key.join(', ');
}

/** The code for a dataset or group. */
export function makeCode(target: CodeTarget, variant: CodeVariant): string {
  const address = pythonText(target.address);
  const name = variableName(target.address);
  if (variant === 'xarray') {
    const lines = ['import xarray as xr'];
    const url = pythonText(`cat2://${target.address}`);
    if (target.kind === 'group') {
      lines.push(`${name} = xr.open_dataset(${url}, engine="caterva2")`, name);
    } else {
      const cut = target.address.lastIndexOf('/');
      const group = pythonText(`cat2://${target.address.slice(0, cut)}`);
      const variable = target.address.slice(cut + 1).replace(/\.b2nd$/, '');
      lines.push(`${name} = xr.open_dataset(${group}, engine="caterva2")[${pythonText(variable)}]`, name);
    }
    return lines.join('\n');
  }
  const lines = ['import caterva2_jupyter as cat2'];
  if (variant === 'dask') {
    lines.push('from caterva2_jupyter.dask_array import to_dask');
    lines.push(`${name} = to_dask(cat2.connect()[${address}])`, name);
    return lines.join('\n');
  }
  lines.push(`${name} = cat2.connect()[${address}]`);
  if (target.kind === 'array' && target.shape !== undefined) {
    const nbytes = product(target.shape) * itemNbytes(target.dtype ?? '');
    if (target.shape.length === 0) {
      lines.push(`${name}[()]`);
    } else if (nbytes <= SMALL_NBYTES) {
      lines.push(`${name}[:]`);
    } else {
      lines.push(`${name}[${sampleKey(target.shape)}]`);
    }
  } else if (target.kind === 'file') {
    lines.push(`${name}[:1000]`);
  } else {
    lines.push(`list(${name})`);
  }
  return lines.join('\n');
}

/** Which variants there are for something of this kind. */
export function variantsFor(kind: string): readonly { id: CodeVariant; label: string }[] {
  if (kind === 'array') {
    return CODE_VARIANTS;
  }
  return kind === 'group' ? CODE_VARIANTS.slice(0, 2) : CODE_VARIANTS.slice(0, 1);
}
