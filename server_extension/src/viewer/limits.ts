// How much one view may take, and what is shown in place of more.
import type { Entry, Geometry } from './service';
import { ItemType, parseDType } from './dtypes';

/** Lines of more points freeze browsers without a GPU. */
export const MAX_LINE_POINTS = 200_000;
export const MAX_PLANE_NBYTES = 64 * 2 ** 20;
/** Points of an overview along a line, and along each axis of a plane. */
export const LINE_PIXELS = 4096;
export const PLANE_PIXELS = 1024;
/** Values of a vector are looked at in rows of this length, planes in tiles of `PLANE_PIXELS` squared. */
export const ROW_LENGTH = 65_536;

const isPlottable = (type: ItemType): boolean => 'iufb'.includes(type.kind);

/** Is its default view over a limit, so that an overview is shown first? */
export function isLarge(entry: Entry): boolean {
  const geometry = entry.geometry;
  if (!geometry?.shape.length) {
    return false;
  }
  try {
    return isLargeGeometry(geometry, parseDType(geometry.dtype));
  } catch {
    return false;
  }
}

function isLargeGeometry({ shape }: Geometry, type: ItemType): boolean {
  if (!isPlottable(type) || shape.includes(0)) {
    return false;
  }
  const [ny, nx] = [shape[shape.length - 2] ?? 1, shape[shape.length - 1]];
  return shape.length === 1 ? nx > MAX_LINE_POINTS : ny * nx * type.itemsize > MAX_PLANE_NBYTES;
}

const count = (n: number): string => n.toLocaleString('en');

/** Why a selection is not shown; empty when it may be. `selection` is H5Web's: integers and full axes. */
export function refusal(shape: number[], itemsize: number, selection: string | undefined, address: string): string {
  const parts = selection?.split(',');
  const lengths = shape.filter((_, axis) => !parts || parts[axis] === ':');
  const items = lengths.reduce((a, b) => a * b, 1);
  const cure = `read a part in Python: caterva2_jupyter.connect()[${JSON.stringify(address)}][...]`;
  if (lengths.length === 1 && shape.length > 0 && items > MAX_LINE_POINTS) {
    return `A line of ${count(items)} points is more than can be drawn (${count(MAX_LINE_POINTS)}): choose another axis, or ${cure}`;
  }
  if (items * itemsize > MAX_PLANE_NBYTES) {
    const mib = (n: number): string => `${count(Math.ceil(n / 2 ** 20))} MiB`;
    return `This view needs ${mib(items * itemsize)}, more than can be shown (${mib(MAX_PLANE_NBYTES)}): choose other axes, or ${cure}`;
  }
  return '';
}
