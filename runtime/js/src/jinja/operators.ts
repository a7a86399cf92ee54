import { percent } from './format.js';
import { compare, Dict, equal, isArray, isList, isNumber, isText, Lazy, Markup, NONE, str, Tuple, typeName, Undefined, type Value } from './values.js';

/** `left operator right` with Python's meaning; `and` and `or` are the interpreter's, which evaluates no more than they need. */
export function binary(operator: string, left: Value, right: Value): Value {
  switch (operator) {
    case '==': return equal(left, right);
    case '!=': return !equal(left, right);
    case '<': return compare(left, right) < 0;
    case '<=': return compare(left, right) <= 0;
    case '>': return compare(left, right) > 0;
    case '>=': return compare(left, right) >= 0;
    case 'in': return contains(right, left);
    case 'not in': return !contains(right, left);
    case '~': return str(left) + str(right);
    case '+': return add(left, right);
    case '*': return multiply(left, right);
    case '%': if (isText(left)) return percent(str(left), right);
  }
  return arithmetic(operator, left, right);
}

/** `value in container` */
export function contains(container: Value, value: Value): boolean {
  if (container instanceof Undefined) return false;
  if (container instanceof Dict) return container.has(value);
  if (isArray(container)) return container.some((item) => equal(item, value));
  if (isText(container) && isText(value)) return str(container).includes(str(value));
  throw new Error(`${typeName(value)} in ${typeName(container)} is not possible`);
}

function add(left: Value, right: Value): Value {
  if (isText(left) && isText(right)) {
    if (!(left instanceof Markup || right instanceof Markup)) return left + right;
    const escaped = (text: Value) => (text instanceof Markup ? text.text : escape(str(text)));
    return new Markup(escaped(left) + escaped(right));
  }
  if (isList(left) && isList(right) && left instanceof Tuple === right instanceof Tuple) return like(left, [...left, ...right]);
  return arithmetic('+', left, right);
}

function multiply(left: Value, right: Value): Value {
  const [many, count] = isNumber(left) ? [right, left] : [left, right];
  if (isNumber(many) || !isNumber(count) || typeof count === 'number') return arithmetic('*', left, right);
  const times = Math.max(0, Number(count));
  const length = typeof many === 'string' ? many.length : isList(many) ? many.length : 0;
  if (length * times > 100_000_000) throw new Error('the text is too long');
  if (typeof many === 'string') return many.repeat(times);
  if (isList(many)) return like(many, Array.from({ length: times }, () => Array.from(many)).flat());
  return arithmetic('*', left, right);
}

function arithmetic(operator: string, left: Value, right: Value): Value {
  if (!isNumber(left) || !isNumber(right)) throw new Error(`${typeName(left)} ${operator} ${typeName(right)} is not possible`);
  const number = Number(right);
  if (number === 0 && ['/', '//', '%'].includes(operator)) throw new Error('division by zero');
  if (operator === '/') return Number(left) / number;
  if (typeof left === 'number' || typeof right === 'number' || (operator === '**' && number < 0)) {
    const [a, b] = [Number(left), number];
    switch (operator) {
      case '+': return a + b;
      case '-': return a - b;
      case '*': return a * b;
      case '%': return remainder(a, b);
      case '//': return Math.floor((a - remainder(a, b)) / b + 0.5);
    }
    const power = a ** b;
    if (!Number.isFinite(power)) throw new Error('the power is not a number');
    return power;
  }
  const [a, b] = [BigInt(left), BigInt(right)];
  switch (operator) {
    case '+': return a + b;
    case '-': return a - b;
    case '*': return a * b;
    case '%': return ((a % b) + b) % b;
    case '//': return (a - (((a % b) + b) % b)) / b;
  }
  if (b > 10_000n) throw new Error('the power is too large');
  return a ** b;
}

/** With the sign of the divisor. */
function remainder(a: number, b: number): number {
  const rest = a % b;
  return rest !== 0 && rest < 0 !== b < 0 ? rest + b : rest === 0 ? (b < 0 ? -0 : 0) : rest;
}

/** Items as a list, or as a tuple where the model is one. */
export function like(model: readonly Value[], items: Value[]): Value {
  return model instanceof Tuple ? Tuple.with(items) : items;
}

/** `value[start:stop:step]` */
export function slice(value: Value, bounds: readonly Value[]): Value {
  const [start, stop, by] = bounds.map((bound) => {
    if (bound === NONE) return undefined;
    if (!isNumber(bound) || typeof bound === 'number') throw new Error('a slice has whole numbers as bounds');
    return Number(bound);
  });
  const step = by ?? 1;
  if (step === 0) throw new Error('a slice cannot have step 0');
  const isRange = value instanceof Lazy && value.kind === 'range';
  if (typeof value !== 'string' && !isList(value) && !isRange) throw new Error(`${typeName(value)} cannot be sliced`);
  const all: readonly Value[] = typeof value === 'string' ? [...value] : (value as readonly Value[]);
  const [lowest, highest] = step > 0 ? [0, all.length] : [-1, all.length - 1];
  const clamp = (bound: number) => Math.min(Math.max(bound < 0 ? bound + all.length : bound, lowest), highest);
  const first = start === undefined ? (step > 0 ? lowest : highest) : clamp(start);
  const last = stop === undefined ? (step > 0 ? highest : lowest) : clamp(stop);
  const taken: Value[] = [];
  for (let at = first; step > 0 ? at < last : at > last; at += step) taken.push(all[at]!);
  return typeof value === 'string' ? taken.join('') : like(value as readonly Value[], taken);
}

export function range(...bounds: number[]): Value {
  const [start, stop, step = 1] = bounds.length === 1 ? [0, bounds[0]!] : (bounds as [number, number, number?]);
  if (bounds.length === 0 || bounds.length > 3 || step === 0 || !bounds.every(Number.isInteger)) throw new Error('range wants one to three whole numbers, and no step of 0');
  const length = Math.max(0, Math.ceil((stop - start) / step));
  if (length > 100_000) throw new Error('range has too many elements');
  const items = Array.from({ length }, (_, at) => BigInt(start + at * step));
  return new Lazy('range', items, () => `range(${start}, ${stop}${step === 1 ? '' : `, ${step}`})`);
}

export function escape(text: string): string {
  const names: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', "'": '&#39;', '"': '&#34;' };
  return text.replace(/[&<>'"]/g, (c) => names[c]!);
}
