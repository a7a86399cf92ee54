/** Python's None; a value of its own, so that nothing of JavaScript's stands for it. */
class None {
  readonly isNone = true;
}
export const NONE = new None();

/**
 * Python's values in templates: an int is a bigint, a float a number, a str a string, a list an array. So whole
 * numbers of JavaScript are ints, since it has no floats that are whole.
 */
export type Value = None | boolean | bigint | number | string | readonly Value[] | Undefined | Markup | Dict | Namespace | Callable;

/** A function, a macro or a method. Named arguments come apart. */
export type Callable = (positional: readonly Value[], named: ReadonlyMap<string, Value>) => Value;

/** What is not there: it prints nothing, is false and has no items; all else with it is an error. */
export class Undefined {
  constructor(readonly name: string) {}
}

export class Tuple extends Array<Value> {
  static with(items: Iterable<Value>): Tuple {
    const tuple = new Tuple();
    for (const item of items) tuple.push(item);
    return tuple;
  }
}

/** `range(..)` and the views of a dict: they have items, and print otherwise than lists. */
export class Lazy extends Array<Value> {
  constructor(
    readonly kind: 'range' | 'keys' | 'values' | 'items',
    items: Iterable<Value>,
    readonly printed: () => string,
  ) {
    super();
    for (const item of items) this.push(item);
  }
}

/** Text that is escaped. */
export class Markup {
  constructor(readonly text: string) {}
}

/** A namespace: the one value that templates may change. */
export class Namespace {
  constructor(readonly fields: Map<string, Value>) {}
}

/** A dict: equal keys are one, so 1, 1.0 and True. */
export class Dict {
  #entries = new Map<string, [Value, Value]>();

  constructor(entries: Iterable<readonly [Value, Value]> = []) {
    for (const [key, value] of entries) this.set(key, value);
  }

  set(key: Value, value: Value): void {
    const id = keyId(key);
    this.#entries.set(id, [this.#entries.get(id)?.[0] ?? key, value]);
  }

  get(key: Value): Value | undefined {
    return this.#entries.get(keyId(key))?.[1];
  }

  has(key: Value): boolean {
    return this.#entries.has(keyId(key));
  }

  get size(): number {
    return this.#entries.size;
  }

  get entries(): (readonly [Value, Value])[] {
    return [...this.#entries.values()];
  }

  get keys(): Value[] {
    return this.entries.map(([key]) => key);
  }
}

function keyId(key: Value): string {
  if (typeof key === 'string') return `s${key}`;
  if (key === NONE) return 'None';
  if (isNumber(key)) return `n${Number(key)}`;
  if (key instanceof Tuple) return `(${key.map(keyId).join()})`;
  if (key instanceof Markup) return `s${key.text}`;
  throw new Error(`${typeName(key)} cannot be a key`);
}

/** JavaScript's values as Python has them when they come as JSON. */
export function fromJs(value: unknown): Value {
  if (value === null) return NONE;
  if (typeof value === 'boolean' || typeof value === 'string' || typeof value === 'bigint') return value;
  if (typeof value === 'number') return Number.isSafeInteger(value) && !Object.is(value, -0) ? BigInt(value) : value;
  if (Array.isArray(value)) return value.map(fromJs);
  if (typeof value === 'function') return (positional) => fromJs((value as (...values: unknown[]) => unknown)(...positional));
  if (typeof value === 'object') return new Dict(Object.entries(value).flatMap(([key, field]) => (field === undefined ? [] : [[key, fromJs(field)] as const])));
  return new Undefined('value');
}

export const isNumber = (value: Value): value is boolean | bigint | number => typeof value === 'bigint' || typeof value === 'number' || typeof value === 'boolean';
export const isText = (value: Value): value is string | Markup => typeof value === 'string' || value instanceof Markup;
export const isArray = (value: Value): value is readonly Value[] => Array.isArray(value);
/** A list or a tuple. */
export const isList = (value: Value): value is readonly Value[] => isArray(value) && !(value instanceof Lazy);

/** As Python calls the type. */
export function typeName(value: Value): string {
  if (value instanceof None) return 'None';
  if (value instanceof Undefined) return 'a value that is not there';
  if (value instanceof Tuple) return 'a tuple';
  if (value instanceof Lazy) return `a ${value.kind}`;
  if (isArray(value)) return 'a list';
  if (value instanceof Dict) return 'a dict';
  if (value instanceof Namespace) return 'a namespace';
  const names: Record<string, string> = { boolean: 'a bool', bigint: 'an int', number: 'a float', function: 'a function' };
  return names[typeof value] ?? 'a str';
}

/** `bool(value)` */
export function truth(value: Value): boolean {
  if (isArray(value)) return value.length > 0;
  if (value instanceof Dict) return value.size > 0;
  if (value instanceof Markup) return value.text !== '';
  return value !== NONE && !(value instanceof Undefined) && Boolean(value);
}

/** `list(value)`: the items of what can be gone through. */
export function items(value: Value): Value[] {
  if (isArray(value)) return Array.from(value);
  if (isText(value)) return [...str(value)];
  if (value instanceof Dict) return value.keys;
  if (value instanceof Undefined) return [];
  throw new Error(`${typeName(value)} has no items`);
}

/** `a == b` */
export function equal(a: Value, b: Value): boolean {
  if (isNumber(a) && isNumber(b)) return Number(a) === Number(b) && (typeof a !== 'bigint' || typeof b !== 'bigint' || a === b);
  if (isText(a) && isText(b)) return str(a) === str(b);
  if (a instanceof Undefined || b instanceof Undefined) return a instanceof Undefined && b instanceof Undefined;
  if (isArray(a) && isArray(b)) return a instanceof Tuple === b instanceof Tuple && a.length === b.length && a.every((item, at) => equal(item, b[at]!));
  if (a instanceof Dict && b instanceof Dict) return a.size === b.size && a.entries.every(([key, value]) => b.has(key) && equal(value, b.get(key)!));
  return a === b;
}

/** Below zero, zero or above, as Python orders; it knows no order between types. */
export function compare(a: Value, b: Value): number {
  const order = (a: bigint | number | string, b: bigint | number | string) => (a < b ? -1 : a > b ? 1 : 0);
  if (isNumber(a) && isNumber(b)) return order(typeof a === 'boolean' ? Number(a) : a, typeof b === 'boolean' ? Number(b) : b);
  if (isText(a) && isText(b)) return compareTexts(str(a), str(b));
  if (isList(a) && isList(b) && a instanceof Tuple === b instanceof Tuple) {
    const at = a.findIndex((item, at) => at >= b.length || !equal(item, b[at]!));
    return at < 0 || at >= b.length ? order(a.length, b.length) : compare(a[at]!, b[at]!);
  }
  throw new Error(`${typeName(a)} and ${typeName(b)} have no order`);
}

/** By characters; JavaScript compares halves of those beyond U+FFFF. */
function compareTexts(a: string, b: string): number {
  const [left, right] = [[...a], [...b]];
  const at = left.findIndex((c, at) => c !== right[at]);
  if (at < 0 || at >= right.length) return Math.sign(left.length - right.length);
  return left[at]!.codePointAt(0)! - right[at]!.codePointAt(0)!;
}

/** `str(value)`, as `{{ }}` prints it. */
export function str(value: Value): string {
  if (typeof value === 'string') return value;
  if (value instanceof Markup) return value.text;
  return value instanceof Undefined ? '' : repr(value);
}

/** `repr(value)`, as it stands in a list. */
export function repr(value: Value): string {
  if (value instanceof None) return 'None';
  if (value instanceof Undefined) return 'Undefined';
  if (typeof value === 'boolean') return value ? 'True' : 'False';
  if (typeof value === 'bigint') return String(value);
  if (typeof value === 'number') return floatRepr(value);
  if (typeof value === 'string') return quote(value);
  if (value instanceof Markup) return `Markup(${quote(value.text)})`;
  if (value instanceof Lazy) return value.printed();
  if (value instanceof Tuple) return `(${Array.from(value, repr).join(', ')}${value.length === 1 ? ',' : ''})`;
  if (isArray(value)) return `[${value.map(repr).join(', ')}]`;
  if (value instanceof Dict) return `{${value.entries.map(([key, field]) => `${repr(key)}: ${repr(field)}`).join(', ')}}`;
  throw new Error(`${typeName(value)} cannot be printed`);
}

/** The shortest digits that mean this float, with an exponent below 1e-4 and from 1e16 on. */
export function floatRepr(value: number): string {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? 'nan' : value > 0 ? 'inf' : '-inf';
  if (Object.is(value, -0)) return '-0.0';
  const [digits, exponent] = value.toExponential().split('e') as [string, string];
  const power = Number(exponent);
  if (power < -4 || power >= 16) return `${digits}e${power < 0 ? '-' : '+'}${String(Math.abs(power)).padStart(2, '0')}`;
  if (value === 0) return '0.0';
  const [sign, plain] = [value < 0 ? '-' : '', digits.replace(/[-.]/g, '')];
  if (power < 0) return `${sign}0.${'0'.repeat(-power - 1)}${plain}`;
  const whole = plain.slice(0, power + 1).padEnd(power + 1, '0');
  return `${sign}${whole}.${plain.slice(power + 1) || '0'}`;
}

function quote(text: string): string {
  const mark = text.includes("'") && !text.includes('"') ? '"' : "'";
  const plain: Record<string, string> = { '\\': '\\\\', '\n': '\\n', '\r': '\\r', '\t': '\\t', [mark]: `\\${mark}` };
  const escaped = [...text].map((c) => {
    if (plain[c] !== undefined || isPrintable(c)) return plain[c] ?? c;
    const code = c.codePointAt(0)!;
    const hex = (letter: string, digits: number) => `\\${letter}${code.toString(16).padStart(digits, '0')}`;
    return code < 0x100 ? hex('x', 2) : code < 0x10000 ? hex('u', 4) : hex('U', 8);
  });
  return mark + escaped.join('') + mark;
}

export const isPrintable = (c: string) => c === ' ' || !/[\p{C}\p{Z}]/u.test(c);
