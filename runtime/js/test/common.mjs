// What all cases use.

export function assert(condition, what) {
  if (!condition) throw new Error(what);
}

export function equal(found, wanted, what = '') {
  const [a, b] = [JSON.stringify(found), JSON.stringify(wanted)];
  if (a !== b) throw new Error(`${what}: ${a} is not ${b}`);
}

export async function refused(promise, code, details = {}) {
  try {
    await promise;
  } catch (error) {
    equal(error.code, code, `${error.message}`);
    assert(error.message.length > 20, `no advice in "${error.message}"`);
    for (const [name, value] of Object.entries(details)) equal(error.details[name], value, name);
    return error;
  }
  throw new Error(`no error, where ${code} was expected`);
}

export const GREEDY = { temperature: 0 };
