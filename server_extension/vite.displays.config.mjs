import { defineConfig } from 'vite';
import { minified, OUT } from './scripts/build.mjs';

export default defineConfig({
  esbuild: { legalComments: 'none' },
  plugins: [minified()],
  build: {
    target: 'es2022',
    outDir: `${OUT}/displays`,
    emptyOutDir: false,
    copyPublicDir: false,
    lib: { entry: { tomography: 'src/displays/tomography.ts' }, formats: ['es'], fileName: (_, name) => `${name}.js` }
  }
});
