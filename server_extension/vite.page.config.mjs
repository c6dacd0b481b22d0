import { defineConfig } from 'vite';
import { minified, OUT } from './scripts/build.mjs';

export default defineConfig({
  esbuild: { legalComments: 'none' },
  plugins: [minified()],
  build: {
    target: 'es2022',
    outDir: OUT,
    emptyOutDir: false,
    copyPublicDir: false,
    cssCodeSplit: false,
    lib: { entry: 'src/page/main.ts', formats: ['es'], fileName: () => 'page.js', cssFileName: 'page' }
  }
});
