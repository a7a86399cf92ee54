// Headless Chromium for the tests and benches: `launch(MODE)` with a persistent profile, its own or one that stays (`profile`).
//   swiftshader   no f16, subgroups of 4
//   lavapipe      f16, subgroups of 8, bindings of 128 MiB (needs KILN_LAVAPIPE and KILN_VULKAN_LAYER, see scripts/test-web.sh)
//   hardware      this machine's GPU through Vulkan; KILN_CHROMIUM_FLAGS, words with spaces between, instead of the usual ones
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const FLAGS = {
  swiftshader: ['--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader'],
  lavapipe: ['--enable-unsafe-webgpu', '--enable-features=Vulkan', '--use-angle=vulkan', '--ignore-gpu-blocklist'],
  hardware: (process.env.KILN_CHROMIUM_FLAGS ?? '--enable-unsafe-webgpu --enable-features=Vulkan --use-angle=vulkan --ignore-gpu-blocklist --disable-vulkan-surface').split(' '),
  /** No WebGPU at all. */
  none: ['--disable-features=WebGPU', '--disable-gpu'],
};

export async function launch(mode, { args = [], profile: kept } = {}) {
  const profile = kept ?? mkdtempSync(join(tmpdir(), 'kiln-chromium-'));
  const lavapipe = { XDG_RUNTIME_DIR: '/tmp', VK_DRIVER_FILES: process.env.KILN_LAVAPIPE, VK_ICD_FILENAMES: process.env.KILN_LAVAPIPE, VK_LAYER_PATH: process.env.KILN_VULKAN_LAYER, VK_INSTANCE_LAYERS: 'VK_LAYER_fakegpu' };
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.KILN_CHROMIUM ?? '/usr/bin/chromium',
    headless: false,
    args: ['--headless=new', '--no-sandbox', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync', '--enable-precise-memory-info', ...FLAGS[mode], ...args],
    env: mode === 'lavapipe' ? { ...process.env, ...lavapipe } : process.env,
    viewport: { width: 1000, height: 760 },
  });
  const logs = [];
  context.on('page', (page) => {
    page.on('console', (message) => logs.push(`${message.type()}: ${message.text().slice(0, 400)}`));
    page.on('pageerror', (error) => logs.push(`page error: ${error.message}`));
  });
  return {
    context,
    logs,
    close: async () => {
      await context.close();
      if (!kept) rmSync(profile, { recursive: true, force: true });
    },
  };
}
