// Bundles src/ into arcmtp/data/page/, which the wheel ships; with --check it only compares.
import { build } from "esbuild";
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const target = join(here, "../arcmtp/data/page");
const limit = 250_000; // bytes of all files but the notice

const bundle = await build({
  absWorkingDir: here,
  entryPoints: { page: "src/main.tsx", style: "src/page.css" },
  outdir: ".",
  bundle: true,
  minify: true,
  write: false,
  metafile: true,
  format: "esm",
  target: ["chrome123", "firefox125", "safari17.5"], // the first with popovers and CSS light-dark()
  charset: "utf8",
  legalComments: "none", // NOTICE.txt has the licences whole
});
const files = new Map(bundle.outputFiles.map((file) => [file.path.split("/").pop(), file.text]));
for (const name of ["index.html", "icon.svg"]) files.set(name, readFileSync(join(here, "src", name), "utf8"));
const size = [...files.values()].reduce((sum, text) => sum + Buffer.byteLength(text), 0);
if (size > limit) throw new Error(`the page has ${size} bytes, more than ${limit}`);
files.set("NOTICE.txt", notice(Object.keys(bundle.metafile.inputs)));

const check = process.argv.includes("--check");
mkdirSync(target, { recursive: true });
const extra = readdirSync(target).filter((name) => !files.has(name));
const wrong = [...files].filter(([name, text]) => !isSame(join(target, name), text)).map(([name]) => name);
if (check && wrong.length + extra.length) {
  console.error(`arcmtp/data/page does not agree with page/src: ${[...wrong, ...extra].join(", ")}; run: make page`);
  process.exit(1);
}
for (const name of wrong) writeFileSync(join(target, name), files.get(name));
console.log(`arcmtp/data/page: ${size} bytes${check ? ", as the sources say" : ""}`);

function isSame(path, text) {
  return existsSync(path) && readFileSync(path, "utf8") === text;
}

/** The licences of the packages that a bundle's inputs come from. */
function notice(inputs) {
  const names = inputs.map((path) => path.match(/node_modules\/((?:@[^/]+\/)?[^/]+)\//)?.[1]).filter(Boolean);
  const parts = [...new Set(names)].sort().map((name) => {
    const folder = join(here, "node_modules", name);
    const { version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
    const file = readdirSync(folder).find((entry) => /^licen[cs]e(\.\w+)?$/i.test(entry));
    if (!file) throw new Error(`${name} has no licence file`);
    return `${name} ${version} (${license})\n\n${readFileSync(join(folder, file), "utf8").trim()}\n`;
  });
  const rule = `\n${"-".repeat(80)}\n\n`;
  return ["The page is built from arcmtp's own sources (Apache-2.0) and from these libraries:\n", ...parts].join(rule);
}
