// node serve.mjs TOY BIG URL_FILE: the tests' server for hosts without one of their own; writes its address.
import { renameSync, writeFileSync } from 'node:fs';
import { serve } from './server.mjs';

const [toy, big, file] = process.argv.slice(2);
const { url } = await serve(new URL('../../../', import.meta.url).pathname, { toy, big });
writeFileSync(`${file}.part`, url);
renameSync(`${file}.part`, file);
