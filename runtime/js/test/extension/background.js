// A service worker may import nothing on demand: all modules are imported here.
import { generate } from './generate.js';
import * as text from './dist/text.js';

globalThis.run = (task) => generate(task, { text });
