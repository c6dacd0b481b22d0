// What the builds have in common.
import { transformWithEsbuild } from 'vite';

export const OUT = '../caterva2_jupyter/static';

/** Vite keeps white space in ES libraries; as nobody imports parts of ours, a third of the bytes goes. */
export const minified = () => ({
  name: 'minified',
  enforce: 'post',
  async generateBundle(_, bundle) {
    for (const chunk of Object.values(bundle)) {
      if (chunk.type === 'chunk') {
        const options = { minify: true, legalComments: 'none', target: 'es2022', format: 'esm', sourcemap: false };
        chunk.code = (await transformWithEsbuild(chunk.code, 'bundle.js', options)).code;
      }
    }
  }
});
