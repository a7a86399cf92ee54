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

/** Lower-case hexadecimal SHA-256 of a text. */
export async function sha256(text) {
  const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text));
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

export const GREEDY = { temperature: 0 };

/**
 * Runs named steps and tells how each went: `check(name, run)`, where what `run` returns is a note. `logs` are what the browser
 * said; `skip(name)` leaves a step out.
 */
export function makeCheck(title, { logs = [], skip = () => false, onFailure = () => {} } = {}) {
  const failures = [];
  const check = async (name, run) => {
    if (skip(name)) return;
    const started = Date.now();
    try {
      const note = await run();
      console.log(`ok     ${title}: ${name}${note ? ` [${note}]` : ''} (${Date.now() - started} ms)`);
    } catch (error) {
      failures.push(name);
      console.log(`FAILED ${title}: ${name} (${Date.now() - started} ms)\n${error.stdout ?? ''}${error.stderr ?? ''}${error.stack}\n${logs.slice(-8).join('\n')}`);
      await onFailure();
    }
  };
  return { check, failures };
}
