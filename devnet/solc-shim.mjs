#!/usr/bin/env node
// Speaks solc's command line in front of npm's solc (the WebAssembly build), which py-solc-x and forge can then drive.
// npm's own `solcjs` does not serve: it prints notices on stdout and lacks --combined-json. What this covers:
//   --version · --help · --standard-json [FILE] · --combined-json FIELDS FILES… | -
//   --base-path --include-path --allow-paths --optimize --optimize-runs --evm-version --via-ir --metadata-hash
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';

const COMBINED = {
  abi: 'abi', asm: 'evm.assembly', bin: 'evm.bytecode', 'bin-runtime': 'evm.deployedBytecode', devdoc: 'devdoc',
  hashes: 'evm.methodIdentifiers', metadata: 'metadata', srcmap: 'evm.bytecode', 'srcmap-runtime': 'evm.deployedBytecode',
  'storage-layout': 'storageLayout', userdoc: 'userdoc',
};
const WITH_VALUE = new Set([
  '--allow-paths', '--base-path', '--combined-json', '--evm-version', '--include-path', '--metadata-hash',
  '--optimize-runs', '--revert-strings',
]);
const BARE = new Set(['--help', '--metadata-literal', '--optimize', '--standard-json', '--version', '--via-ir']);

function fail(message) {
  process.stderr.write(`${message}\n`);
  process.exit(1);
}

function parse(words) {
  const options = { includePaths: [], files: [] };
  for (let i = 0; i < words.length; i++) {
    const [flag, inline] = words[i].startsWith('--') ? words[i].split(/=(.*)/s, 2) : [words[i]];
    if (!flag.startsWith('--')) options.files.push(flag);
    else if (BARE.has(flag)) options[flag] = true;
    else if (!WITH_VALUE.has(flag)) fail(`unrecognised option '${flag}'`);
    else {
      const value = inline ?? words[++i];
      if (value === undefined) fail(`the required argument for option '${flag}' is missing`);
      if (flag === '--include-path') options.includePaths.push(value);
      else options[flag] = value;
    }
  }
  return options;
}

const options = parse(process.argv.slice(2));
// The compiler's module prints notices on stdout, which belongs to the JSON; it takes a while to load, and help needs none.
console.log = console.error;
const solc = options['--help'] ? null : createRequire(import.meta.url)('solc');
const version = solc?.version().replace(/\.Emscripten\.clang$/, '');

function reader(options) {
  const roots = [options['--base-path'] ?? '', ...options.includePaths];
  return {
    import(name) {
      for (const root of roots) {
        const file = path.join(root, name);
        if (fs.existsSync(file)) return { contents: fs.readFileSync(file, 'utf8') };
      }
      return { error: 'File not found.' };
    },
  };
}

function write(text) {
  fs.writeFileSync(1, text);
}

function standardJson(options) {
  const [file] = options.files.filter((name) => name !== '-');
  write(solc.compile(fs.readFileSync(file ?? 0, 'utf8'), reader(options)) + '\n');
}

function combinedJson(options) {
  const fields = options['--combined-json'].split(',');
  const unknown = fields.find((field) => !(field in COMBINED));
  if (unknown !== undefined) fail(`Invalid option to --combined-json: ${unknown}`);
  const sources = {};
  for (const file of options.files) {
    const name = file === '-' ? '<stdin>' : path.relative(options['--base-path'] ?? '', file);
    sources[name] = { content: fs.readFileSync(file === '-' ? 0 : file, 'utf8') };
  }
  const settings = {
    outputSelection: { '*': { '*': [...new Set(fields.map((field) => COMBINED[field]))] } },
    optimizer: { enabled: Boolean(options['--optimize']), runs: Number(options['--optimize-runs'] ?? 200) },
    viaIR: Boolean(options['--via-ir']),
    metadata: { useLiteralContent: Boolean(options['--metadata-literal']) },
  };
  if (options['--evm-version']) settings.evmVersion = options['--evm-version'];
  if (options['--metadata-hash']) settings.metadata.bytecodeHash = options['--metadata-hash'];
  if (options['--revert-strings']) settings.debug = { revertStrings: options['--revert-strings'] };
  const output = JSON.parse(solc.compile(JSON.stringify({ language: 'Solidity', sources, settings }), reader(options)));
  for (const error of output.errors ?? []) process.stderr.write(`${error.formattedMessage}\n`);
  if ((output.errors ?? []).some((error) => error.severity === 'error')) process.exit(1);
  const contracts = {};
  for (const [source, named] of Object.entries(output.contracts ?? {})) {
    for (const [name, contract] of Object.entries(named)) contracts[`${source}:${name}`] = combined(contract, fields);
  }
  write(JSON.stringify({ contracts, version }) + '\n');
}

function combined(contract, fields) {
  const { evm = {} } = contract;
  const values = {
    abi: contract.abi, asm: evm.assembly, bin: evm.bytecode?.object, 'bin-runtime': evm.deployedBytecode?.object,
    devdoc: contract.devdoc, hashes: evm.methodIdentifiers, metadata: contract.metadata, srcmap: evm.bytecode?.sourceMap,
    'srcmap-runtime': evm.deployedBytecode?.sourceMap, 'storage-layout': contract.storageLayout, userdoc: contract.userdoc,
  };
  return Object.fromEntries(fields.map((field) => [field, values[field]]));
}

if (options['--help']) write(`solc, the Solidity compiler.\n  --combined-json ${Object.keys(COMBINED).join(',')}\n`);
else if (options['--version']) write(`solc, the solidity compiler commandline interface\nVersion: ${version}\n`);
else if (options['--standard-json']) standardJson(options);
else if (options['--combined-json']) combinedJson(options);
else fail('say --standard-json or --combined-json');
