/**
 * The second step of a build, after the compiler: puts files that are no code beside the code that reads them, and joins
 * the modules of the command line, and packages of which it uses many files, into few files. Finding, opening and linking
 * two hundred of them takes longer than running them. What only some commands load lies in chunks of its own.
 *
 * Run as `node cli/bundle.mjs` in the root. Plain JavaScript, so that it needs no build itself.
 */
import { chmodSync, cpSync, rmSync } from 'node:fs';
import { build } from 'esbuild';

const OUT = 'dist/cli';

/** These stay packages: they read files of their own, or choose at run time what they load. */
const PACKAGES = ['pg', 'pg-copy-streams', 'pg-logical-replication', 'mysql2', 'pino', 'prom-client', 'zstddec'].concat(
  ['currency-codes', 'iso-3166', 'un-ece-recommendation'],
);

/** Folders that code reads from beside itself: in the sources, compiled, and joined. */
function copyFolders() {
  const noCode = { recursive: true, filter: (path) => !path.endsWith('.ts') };
  for (const folder of ['transform/packs', 'sandbox/demo/retailer/maps', 'monitoring/console/assets'])
    cpSync(folder, `dist/${folder}`, noCode);
  // With what a pack computes by itself: that is loaded by its path.
  cpSync('dist/transform/packs', `${OUT}/chunks/packs`, { recursive: true });
  cpSync('monitoring/console/assets', `${OUT}/chunks/assets`, noCode);
}

rmSync(`${OUT}/chunks`, { recursive: true, force: true });
await build({
  entryPoints: ['cli/main.ts'],
  outdir: OUT,
  chunkNames: 'chunks/[name]-[hash]',
  bundle: true,
  splitting: true,
  format: 'esm',
  platform: 'node',
  target: 'node20',
  external: PACKAGES,
  sourcemap: true,
  sourcesContent: false,
  logLevel: 'warning',
  // CommonJS that is joined asks for Node's own modules by this.
  banner: { js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);" },
});
chmodSync(`${OUT}/main.js`, 0o755);
copyFolders();
