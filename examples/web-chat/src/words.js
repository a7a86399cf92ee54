// Numbers and troubles in plain words.

export function bytes(count) {
  if (count < 1e6) return `${Math.max(Math.round(count / 1e3), 1)} kB`;
  return count < 1e9 ? `${Math.round(count / 1e6)} MB` : `${(count / 1e9).toFixed(1)} GB`;
}

export function seconds(count) {
  if (count < 1) return 'less than a second';
  return count < 90 ? `${Math.round(count)} s` : `${Math.round(count / 60)} min`;
}

const FEATURES = { 'shader-f16': '16-bit numbers', subgroups: 'subgroup operations' };

/** What a device lacks that a better form of the model would use; empty where it lacks nothing. */
export function lacks({ variants, missing }) {
  if (variants.length === 0) {
    const limits = missing.filter(({ needed }) => needed !== undefined);
    const memory = limits.find(({ name }) => /buffer/i.test(name));
    if (memory) return `This device cannot run the model: it needs pieces of memory of ${bytes(memory.needed)}, the device gives at most ${bytes(memory.found)}. A smaller model may fit.`;
    return 'This device cannot run the model. A smaller model, another browser or a newer graphics driver may help.';
  }
  const names = [...new Set(missing.map(({ name }) => FEATURES[name]).filter(Boolean))];
  return names.length === 0 ? '' : `This device has no ${names.join(' and no ')}. The model runs all the same, only slower than it could.`;
}

/** What went wrong and what to do. */
export function trouble(error) {
  if (error?.code === 'no-webgpu') return `This cannot run here: ${error.message}.`;
  if (error?.code === 'no-adapter') return 'This browser could run a model, but it finds no graphics device that it may use. Turn on hardware acceleration in its settings, and update the graphics driver.';
  if (error?.code === 'not-found' || error?.code === 'html') return `There is no model at this address: ${error.details?.url ?? 'look at it again'}`;
  if (error?.code === 'quota') return 'The browser has no more room for models. Remove one that is not needed, or free some space.';
  if (error?.code === 'device-lost') return 'The graphics device was reset. Send the message again: the model is loaded anew and the conversation is kept.';
  if (error?.code === 'context-overflow') return 'The conversation is longer than the model can follow. Begin a new one.';
  if (error?.code === 'network') return 'The model could not be downloaded. Check the connection; what is here already is kept, and the download goes on from there.';
  const text = String(error?.message ?? error);
  return `${text.startsWith('http') ? text : text[0].toUpperCase() + text.slice(1)}.`.replace(/\.\.$/, '.');
}
