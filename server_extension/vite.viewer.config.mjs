import { defineConfig } from 'vite';
import { minified, OUT } from './scripts/build.mjs';
import { adaptedH5Web } from './scripts/h5web.mjs';

export default defineConfig({
  esbuild: { jsx: 'automatic', legalComments: 'none' },
  define: { 'process.env.NODE_ENV': '"production"' },
  plugins: [adaptedH5Web(), minified()],
  build: {
    target: 'es2022',
    outDir: OUT,
    emptyOutDir: false,
    copyPublicDir: false,
    lib: { entry: 'src/viewer/main.ts', formats: ['es'], fileName: () => 'viewer.js' },
    rollupOptions: { output: { inlineDynamicImports: true } }
  }
});
