// Bundles the view for front ends without the labextension: one module and its style beside it.
import { build } from 'esbuild';

const out = 'kernel_magic/nbscale/notebook/static';
await build({
  entryPoints: { widget: 'labextension/src/widget.ts' },
  bundle: true,
  format: 'esm',
  minify: true,
  target: 'es2022',
  outdir: out
});
await build({
  entryPoints: { widget: 'labextension/style/base.css' },
  bundle: true,
  minify: true,
  outdir: out
});
