import { Arguments } from './arguments.js';
import { fixed, percent } from './format.js';
import { JSON_OPTIONS, toJson } from './json.js';
import { capitalize, justified, replace, splitLines, strip } from './methods.js';
import { binary, escape } from './operators.js';
import { holds, TESTS } from './tests.js';
import { compare, Dict, equal, isArray, isNumber, isText, items, Markup, NONE, str, truth, Tuple, typeName, Undefined, type Value } from './values.js';

type Filter = (value: Value, positional: readonly Value[], named: ReadonlyMap<string, Value>) => Value;

/** A filter whose arguments have these names. */
function of(what: string, names: readonly string[], run: (value: Value, given: Arguments) => Value): Filter {
  return (value, positional, named) => run(value, new Arguments(what, names, positional, named));
}

const plain = (what: string, run: (value: Value) => Value) => [what, of(what, [], run)] as const;

export function filter(name: string, value: Value, positional: readonly Value[], named: ReadonlyMap<string, Value>): Value {
  if (!Object.hasOwn(FILTERS, name)) throw new Error(`there is no filter ${name}`);
  return FILTERS[name]!(value, positional, named);
}

/** What `attribute` names: a position, or names with dots between them. */
function path(value: Value, attribute: Value, otherwise?: Value): Value {
  const parts = isText(attribute) ? str(attribute).split('.') : [attribute];
  for (const part of parts) {
    if (value instanceof Undefined) throw new Error(`${String(part)} of a value that is not there`);
    const at = typeof part === 'bigint' ? Number(part) : typeof part === 'string' && /^\d+$/.test(part) ? Number(part) : undefined;
    const found: Value | undefined = value instanceof Dict ? (value.get(part) ?? (at === undefined ? undefined : value.get(BigInt(at)))) : at !== undefined && isArray(value) ? value.at(at) : undefined;
    if (found === undefined && otherwise !== undefined) return otherwise;
    value = found ?? new Undefined(String(part));
  }
  return value;
}

/** What is compared: the attribute if one is named, and texts without their case unless it matters. */
function keyOf(given: Arguments): (value: Value) => Value {
  return (value) => {
    const key = given.lacks('attribute') ? value : path(value, given.get('attribute')!, given.get('default'));
    return isText(key) && !given.flag('case_sensitive') ? str(key).toLowerCase() : key;
  };
}

function sorted(values: Value[], key: (value: Value) => Value, reverse: boolean): Value[] {
  const order = (a: Value, b: Value) => (reverse ? compare(key(b), key(a)) : compare(key(a), key(b)));
  return values.sort(order);
}

function extreme(what: 'min' | 'max'): Filter {
  return of(what, ['case_sensitive', 'attribute'], (value, given) => {
    const key = keyOf(given);
    const better = (a: Value, b: Value) => (what === 'min' ? compare(key(b), key(a)) < 0 : compare(key(b), key(a)) > 0);
    const all = items(value);
    return all.length === 0 ? new Undefined('first') : all.reduce((best, item) => (better(best, item) ? item : best));
  });
}

/** These filters look into nothing that is false, None among it. */
const itemsIfAny = (value: Value) => (truth(value) ? items(value) : []);

/** `select` and its like: with a test, or by what is true. */
function select(what: string, byAttribute: boolean, wanted: boolean): Filter {
  return (value, positional, named) => {
    if (named.size > 0 || (byAttribute && positional.length === 0)) throw new Error(`${what} takes other arguments`);
    const [attribute, rest] = byAttribute ? [positional[0]!, positional.slice(1)] : [undefined, positional];
    const [test, ...others] = rest;
    if (test !== undefined && !isText(test)) throw new Error(`${what} wants the name of a test`);
    return itemsIfAny(value).filter((item) => {
      const tested = attribute === undefined ? item : path(item, attribute);
      return (test === undefined ? truth(tested) : holds(str(test), tested, others)) === wanted;
    });
  };
}

function int(text: string, base: number): bigint | undefined {
  const digits = /^([-+]?)(?:0[bB](?=[01])|0[oO](?=[0-7])|0[xX](?=[\da-fA-F]))?(\w+)$/.exec(strip(text, undefined));
  if (!digits || /^_|__|_$/.test(digits[2]!)) return undefined;
  const prefix = /^[-+]?0([box])/i.exec(strip(text, undefined))?.[1]?.toLowerCase();
  const hasPrefix = prefix !== undefined && { b: 2, o: 8, x: 16 }[prefix] === base;
  const plain = (hasPrefix ? digits[2]! : strip(text, undefined).replace(/^[-+]/, '')).replaceAll('_', '').toLowerCase();
  let number = 0n;
  for (const c of plain) {
    const digit = parseInt(c, 36);
    if (Number.isNaN(digit) || digit >= base) return undefined;
    number = number * BigInt(base) + BigInt(digit);
  }
  return digits[1] === '-' ? -number : number;
}

function float(text: string): number | undefined {
  const plain = strip(text, undefined).toLowerCase();
  const word = /^([-+]?)(?:(inf|infinity)|(nan))$/.exec(plain);
  if (word) return word[3] ? NaN : word[1] === '-' ? -Infinity : Infinity;
  return /^[-+]?(?:\d+(?:_\d+)*\.?(?:\d+(?:_\d+)*)?|\.\d+(?:_\d+)*)(?:e[-+]?\d+)?$/.test(plain) ? Number(plain.replaceAll('_', '')) : undefined;
}

const whole = (number: number | undefined) => (number === undefined || !Number.isFinite(number) ? undefined : BigInt(Math.trunc(number)));

function needed(value: Value, what: string): Value {
  if (value instanceof Undefined) throw new Error(`${what} of a value that is not there`);
  return value;
}

function round(value: Value, precision: number, method: string): Value {
  if (!isNumber(value)) throw new Error(`${typeName(value)} cannot be rounded`);
  if (method !== 'common') {
    if (method !== 'ceil' && method !== 'floor') throw new Error('round knows common, ceil and floor');
    const scale = 10 ** precision;
    return Math[method](Number(value) * scale) / scale;
  }
  if (typeof value === 'number' && precision >= 0) return (value < 0 || Object.is(value, -0) ? -1 : 1) * Number(fixed(Math.abs(value), precision));
  if (precision >= 0) return BigInt(value);
  const scale = 10 ** -precision;
  const rounded = Number(fixed(Math.abs(Number(value)) / scale, 0)) * scale * (Number(value) < 0 ? -1 : 1);
  return typeof value === 'number' ? rounded : BigInt(rounded);
}

function indent(value: Value, given: Arguments): Value {
  const width = given.get('width') ?? 4n;
  const indentation = isText(width) ? str(width) : ' '.repeat(Math.max(0, Math.min(given.integer('width', 4), 1000)));
  const lines = splitLines(`${str(value)}\n`).map((line, at) => (at > 0 && (line !== '' || given.flag('blank')) ? indentation + line : line));
  return (given.flag('first') ? indentation : '') + lines.join('\n');
}

function groups(value: Value, given: Arguments): Value {
  const key = keyOf(given);
  const raw = (item: Value) => path(item, given.get('attribute') ?? NONE, given.get('default'));
  const all: { key: Value; of: Value; items: Value[] }[] = [];
  for (const item of sorted(items(value), key, false)) {
    const last = all.at(-1);
    if (last && equal(last.key, key(item))) last.items.push(item);
    else all.push({ key: key(item), of: raw(item), items: [item] });
  }
  return all.map((group) => Object.assign(Tuple.with([group.of, group.items]), { grouper: group.of, list: group.items }));
}

const FILTERS: Record<string, Filter> = {
  // Stands for the block of this name, which marks the assistant's words for training.
  generation: (value) => value,
  ...Object.fromEntries([
    plain('string', (value) => (value instanceof Markup ? value : str(value))),
    plain('upper', (value) => str(value).toUpperCase()),
    plain('lower', (value) => str(value).toLowerCase()),
    plain('capitalize', (value) => capitalize(str(value))),
    plain('title', (value) => str(value).replace(/([^-\s({[<]+)/g, (word) => word.slice(0, 1).toUpperCase() + word.slice(1).toLowerCase())),
    plain('safe', (value) => new Markup(str(value))),
    plain('forceescape', (value) => new Markup(escape(str(value)))),
    plain('list', items),
    plain('first', (value) => items(value)[0] ?? new Undefined('first')),
    plain('last', (value) => items(value).at(-1) ?? new Undefined('last')),
    plain('reverse', (value) => (isText(value) ? [...str(value)].reverse().join('') : items(value).reverse())),
    plain('abs', (value) => (isNumber(value) ? (Number(value) < 0 ? binary('-', 0n, value) : typeof value === 'boolean' ? BigInt(value) : value) : needed(new Undefined(''), 'abs'))),
    plain('items', (value) => {
      if (value instanceof Undefined) return [];
      if (!(value instanceof Dict)) throw new Error('items are of a dict');
      return value.entries.map((entry) => Tuple.with(entry));
    }),
  ]),
  ...Object.fromEntries(['length', 'count'].map((name) => plain(name, (value) => {
    if (isNumber(value) || value === NONE || typeof value === 'function') throw new Error(`${typeName(value)} has no length`);
    return BigInt(items(value).length);
  }))),
  ...Object.fromEntries(['escape', 'e'].map((name) => plain(name, (value) => (value instanceof Markup ? value : new Markup(escape(str(value))))))),
  ...Object.fromEntries(['default', 'd'].map((name) => [name, of(name, ['default_value', 'boolean'], (value, given) =>
    value instanceof Undefined || (given.flag('boolean') && !truth(value)) ? (given.get('default_value') ?? '') : value)])),
  tojson: (value, positional, named) => {
    const given = new Arguments('tojson', JSON_OPTIONS, positional, named);
    return toJson(value, JSON_OPTIONS.map((name) => given.get(name) ?? NONE));
  },
  trim: of('trim', ['chars'], (value, given) => strip(str(value), given.text('chars', undefined))),
  center: of('center', ['width'], (value, given) => justified(str(value), 'center', given.integer('width', 80))),
  replace: of('replace', ['old', 'new', 'count'], (value, given) => replace(str(value), str(given.needed('old')), str(given.needed('new')), given.integer('count', -1))),
  format: (value, positional, named) => {
    if (positional.length > 0 && named.size > 0) throw new Error('format takes values by position or by name, not both');
    return percent(str(value), named.size > 0 ? new Dict(named) : Tuple.with(positional));
  },
  join: of('join', ['d', 'attribute'], (value, given) => {
    const texts = items(value).map((item) => str(given.lacks('attribute') ? item : path(item, given.get('attribute')!)));
    return texts.join(str(given.get('d') ?? ''));
  }),
  indent: of('indent', ['width', 'first', 'blank'], indent),
  int: of('int', ['default', 'base'], (value, given) => {
    const number = isNumber(needed(value, 'int')) ? whole(Number(value)) : isText(value) ? (int(str(value), given.integer('base', 10)) ?? whole(float(str(value)))) : undefined;
    return typeof value === 'bigint' ? value : (number ?? given.get('default') ?? 0n);
  }),
  float: of('float', ['default'], (value, given) => (isNumber(needed(value, 'float')) ? Number(value) : ((isText(value) ? float(str(value)) : undefined) ?? given.get('default') ?? 0))),
  round: of('round', ['precision', 'method'], (value, given) => round(value, given.integer('precision', 0), given.text('method', 'common'))),
  sort: of('sort', ['reverse', 'case_sensitive', 'attribute'], (value, given) => {
    const attributes = given.lacks('attribute') || !isText(given.get('attribute')!) ? [] : given.text('attribute').split(',');
    const key = keyOf(given);
    const fold = (value: Value) => (isText(value) && !given.flag('case_sensitive') ? str(value).toLowerCase() : value);
    return sorted(items(value), attributes.length > 1 ? (item) => attributes.map((name) => fold(path(item, name))) : key, given.flag('reverse'));
  }),
  dictsort: of('dictsort', ['case_sensitive', 'by', 'reverse'], (value, given) => {
    if (!(value instanceof Dict)) throw new Error('dictsort sorts a dict');
    const at = ['key', 'value'].indexOf(given.text('by', 'key'));
    if (at < 0) throw new Error('dictsort sorts by key or by value');
    const fold = (value: Value) => (isText(value) && !given.flag('case_sensitive') ? str(value).toLowerCase() : value);
    return sorted(value.entries.map((entry) => Tuple.with(entry)), (entry) => fold((entry as Tuple)[at]!), given.flag('reverse'));
  }),
  min: extreme('min'),
  max: extreme('max'),
  sum: of('sum', ['attribute', 'start'], (value, given) =>
    items(value).map((item) => (given.lacks('attribute') ? item : path(item, given.get('attribute')!))).reduce((sum, item) => binary('+', sum, item), given.get('start') ?? 0n)),
  unique: of('unique', ['case_sensitive', 'attribute'], (value, given) => {
    const [key, seen] = [keyOf(given), new Dict()];
    return items(value).filter((item) => !seen.has(key(item)) && (seen.set(key(item), NONE), true));
  }),
  groupby: of('groupby', ['attribute', 'default', 'case_sensitive'], groups),
  batch: of('batch', ['linecount', 'fill_with'], (value, given) => {
    const count = given.integer('linecount', 0);
    if (count < 1) throw new Error('batch wants a number above 0');
    const rows: Value[][] = [];
    items(value).forEach((item, at) => (at % count === 0 ? rows.push([item]) : rows.at(-1)!.push(item)));
    while (!given.lacks('fill_with') && rows.length > 0 && rows.at(-1)!.length < count) rows.at(-1)!.push(given.get('fill_with')!);
    return rows;
  }),
  map: (value, positional, named) => {
    if (positional.length === 0) {
      const given = new Arguments('map', ['attribute', 'default'], [], named);
      return itemsIfAny(value).map((item) => path(item, given.get('attribute') ?? NONE, given.get('default')));
    }
    const [name, ...rest] = positional;
    if (!isText(name!)) throw new Error('map wants the name of a filter');
    return itemsIfAny(value).map((item) => filter(str(name), item, rest, named));
  },
  select: select('select', false, true),
  reject: select('reject', false, false),
  selectattr: select('selectattr', true, true),
  rejectattr: select('rejectattr', true, false),
};

// Tests that ask for names.
Object.assign(TESTS, {
  filter: (value: Value) => Object.hasOwn(FILTERS, str(value)),
  test: (value: Value) => Object.hasOwn(TESTS, str(value)),
});
