// A service worker may import nothing on demand: all modules are imported here.
import * as kiln from '../dist/index.js';
import * as text from '../dist/text.js';

self.addEventListener('install', () => self.skipWaiting());
self.addEventListener('activate', (event) => event.waitUntil(self.clients.claim()));
self.addEventListener('message', (event) => event.waitUntil(answer(event)));

async function answer({ data: { source, prompt, maxTokens }, ports: [port] }) {
  try {
    const model = await kiln.loadModel(source, { text });
    const { ids } = await model.generate(prompt, { temperature: 0, maxTokens }).result;
    model.dispose();
    port.postMessage({ ids });
  } catch (error) {
    port.postMessage({ error: `${error.code}: ${error.message}` });
  }
}
