import { hasCase, NOT_LOWER, NOT_UPPER } from './methods.js';
import { binary, contains } from './operators.js';
import { compare, Dict, equal, isArray, isList, isNumber, isText, Lazy, Markup, NONE, str, Undefined, type Value } from './values.js';

type Test = (value: Value, ...others: Value[]) => boolean;

/** What division by two leaves. */
const half = (value: Value) => binary('%', isNumber(value) ? value : NONE, 2n);
const same = (a: Value, b: Value) => a === b || (isText(a) && isText(b) && str(a) === str(b));

/** Jinja2's tests: `value is name(others)`. */
export const TESTS: Record<string, Test> = {
  defined: (value) => !(value instanceof Undefined),
  undefined: (value) => value instanceof Undefined,
  none: (value) => value === NONE,
  true: (value) => value === true,
  false: (value) => value === false,
  boolean: (value) => typeof value === 'boolean',
  number: isNumber,
  integer: (value) => typeof value === 'bigint',
  float: (value) => typeof value === 'number',
  string: isText,
  escaped: (value) => value instanceof Markup,
  mapping: (value) => value instanceof Dict,
  // None is not iterable, a value that is not there is: it has no items.
  iterable: (value) => isArray(value) || isText(value) || value instanceof Dict || value instanceof Undefined,
  sequence: (value) => isList(value) || (value instanceof Lazy && value.kind === 'range') || isText(value) || value instanceof Dict || value instanceof Undefined,
  callable: (value) => typeof value === 'function' || value instanceof Undefined,
  sameas: same,
  odd: (value) => equal(half(value), 1n),
  even: (value) => equal(half(value), 0n),
  divisibleby: (value, by) => equal(binary('%', isNumber(value) ? value : NONE, by!), 0n),
  lower: (value) => hasCase(str(value), NOT_LOWER),
  upper: (value) => hasCase(str(value), NOT_UPPER),
  in: (value, container) => contains(container!, value),
  eq: equal,
  ne: (a, b) => !equal(a, b!),
  lt: (a, b) => compare(a, b!) < 0,
  le: (a, b) => compare(a, b!) <= 0,
  gt: (a, b) => compare(a, b!) > 0,
  ge: (a, b) => compare(a, b!) >= 0,
};
Object.assign(TESTS, { equalto: TESTS.eq, '==': TESTS.eq, '!=': TESTS.ne, '<': TESTS.lt, lessthan: TESTS.lt, '<=': TESTS.le, '>': TESTS.gt, greaterthan: TESTS.gt, '>=': TESTS.ge });

/** Whether a test of this name holds. */
export function holds(name: string, value: Value, others: readonly Value[]): boolean {
  const test = Object.hasOwn(TESTS, name) ? TESTS[name] : undefined;
  // Functions of JavaScript know how many values they take.
  if (!test || test.length !== others.length + 1) throw new Error(`there is no test ${name} of ${others.length + 1} values`);
  return test(value, ...others);
}
