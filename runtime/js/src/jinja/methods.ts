import { Arguments } from './arguments.js';
import { pad, strFormat } from './format.js';
import { type Callable, Dict, equal, isList, isPrintable, isText, items, Lazy, NONE, repr, str, Tuple, typeName, type Value } from './values.js';

/** What Python takes as space. */
const SPACE = '\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000';
const LEFT = new RegExp(`^[${SPACE}]+`);
const RIGHT = new RegExp(`[${SPACE}]+$`);
const WORDS = new RegExp(`[^${SPACE}]+`, 'g');

type Method<T> = (self: T, positional: readonly Value[], named: ReadonlyMap<string, Value>) => Value;

/** The method of a value; undefined where its type has none of this name. Methods that change their value are not for templates. */
export function method(value: Value, name: string): Callable | undefined {
  const bind = <T>(table: Record<string, Method<T>>, self: T): Callable | undefined =>
    Object.hasOwn(table, name) ? (positional, named) => table[name]!(self, positional, named) : undefined;
  if (typeof value === 'string') return bind(TEXT, value);
  if (value instanceof Dict) return bind(DICT, value);
  if (isList(value)) return bind(LIST, value);
  if (typeof value === 'number' || typeof value === 'bigint') return bind(NUMBER, value);
  return undefined;
}

/** A method whose arguments have these names. */
function of<T>(what: string, names: string[], run: (self: T, given: Arguments) => Value): Method<T> {
  return (self, positional, named) => run(self, new Arguments(what, names, positional, named));
}

const plain = (what: string, run: (text: string) => Value) => [what, of<string>(what, [], run)] as const;

/** A text with the sides stripped. */
export function strip(text: string, chars: string | undefined, left = true, right = true): string {
  if (chars === undefined) return (right ? (t: string) => t.replace(RIGHT, '') : String)(left ? text.replace(LEFT, '') : text);
  const all = [...text];
  const goes = new Set(chars);
  let [start, end] = [0, all.length];
  while (left && start < end && goes.has(all[start]!)) start++;
  while (right && end > start && goes.has(all[end - 1]!)) end--;
  return all.slice(start, end).join('');
}

function split(text: string, given: Arguments, fromRight: boolean): Value {
  const separator = given.text('sep', undefined);
  const limit = given.integer('maxsplit', -1);
  if (separator === undefined) {
    const words = [...text.matchAll(WORDS)];
    if (limit < 0 || words.length <= limit) return words.map(([word]) => word);
    const kept = fromRight ? words.slice(words.length - limit) : words.slice(0, limit);
    const parts = kept.map(([word]) => word);
    if (words.length === limit) return parts;
    const rest = fromRight ? text.slice(0, words[words.length - limit]?.index ?? text.length).replace(RIGHT, '') : text.slice(words[limit]!.index);
    return fromRight ? [rest, ...parts] : [...parts, rest];
  }
  if (separator === '') throw new Error('split: the separator is empty');
  const parts = text.split(separator);
  if (limit < 0 || parts.length <= limit + 1) return parts;
  const cut = fromRight ? parts.length - limit : limit;
  return fromRight ? [parts.slice(0, cut).join(separator), ...parts.slice(cut)] : [...parts.slice(0, cut), parts.slice(cut).join(separator)];
}

export function splitLines(text: string, keepEnds = false): string[] {
  const lines = text.match(/[^\n\r\v\f\x1c-\x1e\x85\u2028\u2029]*(?:\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]|$)/g)!.filter((line) => line !== '');
  return keepEnds ? lines : lines.map((line) => line.replace(/(?:\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029])$/, ''));
}

/** The characters from `start` to `end`, and where they begin; undefined where there is no such part. */
function part(text: string, given: Arguments): { start: number; chars: string[] } | undefined {
  const all = [...text];
  const bound = (bound: number) => (bound < 0 ? Math.max(0, bound + all.length) : bound);
  const [start, end] = [bound(given.integer('start', 0)), Math.min(bound(given.integer('end', all.length)), all.length)];
  return start > end ? undefined : { start, chars: all.slice(start, end) };
}

function find(what: 'find' | 'rfind' | 'index' | 'rindex') {
  return of<string>(what, ['sub', 'start', 'end'], (text, given) => {
    const found = part(text, given);
    const wanted = given.text('sub');
    const within = found?.chars.join('') ?? '';
    const at = found === undefined ? -1 : what.startsWith('r') ? within.lastIndexOf(wanted) : within.indexOf(wanted);
    if (at < 0 && what.endsWith('index')) throw new Error(`${what}: ${repr(wanted)} is not in the text`);
    return BigInt(at < 0 ? -1 : found!.start + [...within.slice(0, at)].length);
  });
}

function begins(what: 'startsWith' | 'endsWith') {
  return of<string>(what.toLowerCase(), ['prefix', 'start', 'end'], (text, given) => {
    const found = part(text, given)?.chars.join('');
    const wanted = given.get('prefix');
    if (wanted instanceof Tuple) return found !== undefined && wanted.some((wanted) => isText(wanted) && found[what](str(wanted)));
    return found !== undefined && found[what](given.text('prefix'));
  });
}

/** Letters that are one in the middle of a word and another at its beginning. */
const DIGRAPHS: Record<string, string> = { ǆ: 'ǅ', Ǆ: 'ǅ', ǉ: 'ǈ', Ǉ: 'ǈ', ǌ: 'ǋ', Ǌ: 'ǋ', ǳ: 'ǲ', Ǳ: 'ǲ' };

function large(c: string): string {
  const [first = '', ...rest] = c.toUpperCase();
  return DIGRAPHS[c] ?? first + rest.join('').toLowerCase();
}

export function capitalize(text: string): string {
  const [first = '', ...rest] = text;
  return large(first) + rest.join('').toLowerCase();
}


function title(text: string): string {
  let inside = false;
  return [...text].map((c) => {
    const written = inside ? c.toLowerCase() : large(c);
    inside = isCased(c);
    return written;
  }).join('');
}

const isCased = (c: string) => /[\p{Lowercase}\p{Uppercase}\p{Lt}]/u.test(c);

/** `islower` and `isupper` */
export function hasCase(text: string, other: RegExp): boolean {
  return [...text].some(isCased) && ![...text].some((c) => other.test(c));
}
export const NOT_LOWER = /[\p{Uppercase}\p{Lt}]/u;
export const NOT_UPPER = /[\p{Lowercase}\p{Lt}]/u;

function isNumeric(text: string, what: 'isdigit' | 'isdecimal' | 'isnumeric'): boolean {
  // Python tells powers, fractions and signs that mean numbers apart, by tables that JavaScript has not.
  const unknown = what === 'isdecimal' ? undefined : (what === 'isdigit' ? /\p{No}/u : /\p{Lo}/u).exec(text)?.[0];
  if (unknown !== undefined) throw new Error(`${what} is not known of ${repr(unknown)}`);
  return (what === 'isnumeric' ? /^\p{N}+$/u : /^\p{Nd}+$/u).test(text);
}

export function justified(text: string, what: 'ljust' | 'rjust' | 'center', width: number, fill = ' '): string {
  if ([...fill].length !== 1) throw new Error(`${what} fills with one character`);
  const missing = Math.max(0, width - [...text].length);
  // Where both sides get some and the number is odd, Python gives the left one more if the width is odd, too.
  const left = what === 'ljust' ? 0 : what === 'rjust' ? missing : Math.floor(missing / 2) + (missing & width & 1);
  return pad('', { kind: '', width: left, fill, align: '>' }) + text + pad('', { kind: '', width: missing - left, fill, align: '>' });
}

function justify(what: 'ljust' | 'rjust' | 'center') {
  return of<string>(what, ['width', 'fillchar'], (text, given) => justified(text, what, given.integer('width', 0), given.text('fillchar', ' ')));
}

const TEXT: Record<string, Method<string>> = {
  ...Object.fromEntries([
    plain('upper', (text) => text.toUpperCase()),
    plain('lower', (text) => text.toLowerCase()),
    plain('title', title),
    plain('capitalize', capitalize),
    plain('swapcase', (text) => [...text].map((c) => (/\p{Uppercase}/u.test(c) ? c.toLowerCase() : c.toUpperCase())).join('')),
    plain('islower', (text) => hasCase(text, NOT_LOWER)),
    plain('isupper', (text) => hasCase(text, NOT_UPPER)),
    plain('istitle', (text) => [...text].some(isCased) && title(text) === text),
    plain('isspace', (text) => new RegExp(`^[${SPACE}]+$`).test(text)),
    plain('isalpha', (text) => /^\p{L}+$/u.test(text)),
    plain('isalnum', (text) => text !== '' && [...text].every((c) => /\p{L}/u.test(c) || isNumeric(c, 'isnumeric'))),
    plain('isascii', (text) => /^[\0-\x7f]*$/.test(text)),
    plain('isprintable', (text) => [...text].every(isPrintable)),
    plain('isdigit', (text) => isNumeric(text, 'isdigit')),
    plain('isdecimal', (text) => isNumeric(text, 'isdecimal')),
    plain('isnumeric', (text) => isNumeric(text, 'isnumeric')),
    plain('isidentifier', (text) => /^[\p{ID_Start}_]\p{ID_Continue}*$/u.test(text)),
  ]),
  strip: of('strip', ['chars'], (text, given) => strip(text, given.text('chars', undefined))),
  lstrip: of('lstrip', ['chars'], (text, given) => strip(text, given.text('chars', undefined), true, false)),
  rstrip: of('rstrip', ['chars'], (text, given) => strip(text, given.text('chars', undefined), false, true)),
  split: of('split', ['sep', 'maxsplit'], (text, given) => split(text, given, false)),
  rsplit: of('rsplit', ['sep', 'maxsplit'], (text, given) => split(text, given, true)),
  partition: of('partition', ['sep'], (text, given) => partition(text, given.text('sep'), text.indexOf(given.text('sep')), false)),
  rpartition: of('rpartition', ['sep'], (text, given) => partition(text, given.text('sep'), text.lastIndexOf(given.text('sep')), true)),
  splitlines: of('splitlines', ['keepends'], (text, given) => splitLines(text, given.flag('keepends'))),
  startswith: begins('startsWith'),
  endswith: begins('endsWith'),
  find: find('find'),
  rfind: find('rfind'),
  index: find('index'),
  rindex: find('rindex'),
  count: of('count', ['sub', 'start', 'end'], (text, given) => {
    const within = part(text, given)?.chars;
    const wanted = given.text('sub');
    if (within === undefined) return 0n;
    return BigInt(wanted === '' ? within.length + 1 : within.join('').split(wanted).length - 1);
  }),
  replace: of('replace', ['old', 'new', 'count'], (text, given) => replace(text, given.text('old'), given.text('new'), given.integer('count', -1))),
  removeprefix: of('removeprefix', ['prefix'], (text, given) => (text.startsWith(given.text('prefix')) ? text.slice(given.text('prefix').length) : text)),
  removesuffix: of('removesuffix', ['suffix'], (text, given) => (given.text('suffix') !== '' && text.endsWith(given.text('suffix')) ? text.slice(0, -given.text('suffix').length) : text)),
  ljust: justify('ljust'),
  rjust: justify('rjust'),
  center: justify('center'),
  zfill: of('zfill', ['width'], (text, given) => {
    const sign = /^[-+]?/.exec(text)![0];
    return sign + justified(text.slice(sign.length), 'rjust', given.integer('width', 0) - sign.length, '0');
  }),
  expandtabs: of('expandtabs', ['tabsize'], (text, given) => {
    const size = Math.min(given.integer('tabsize', 8), 1000);
    let column = 0;
    return [...text].map((c) => {
      if (c !== '\t') {
        column = c === '\n' || c === '\r' ? 0 : column + 1;
        return c;
      }
      const width = size <= 0 ? 0 : size - (column % size);
      column += width;
      return ' '.repeat(width);
    }).join('');
  }),
  join: of('join', ['iterable'], (text, given) => {
    const parts = items(given.get('iterable') ?? NONE).map((item) => {
      if (!isText(item)) throw new Error(`join wants texts, not ${typeName(item)}`);
      return str(item);
    });
    return parts.join(text);
  }),
  format: strFormat,
};

function partition(text: string, separator: string, at: number, fromRight: boolean): Value {
  if (separator === '') throw new Error('partition: the separator is empty');
  if (at < 0) return Tuple.with(fromRight ? ['', '', text] : [text, '', '']);
  return Tuple.with([text.slice(0, at), separator, text.slice(at + separator.length)]);
}

export function replace(text: string, old: string, by: string, count: number): string {
  const parts = old === '' ? ['', ...text, ''] : text.split(old);
  if (count < 0 || parts.length <= count + 1) return parts.join(by);
  return parts.slice(0, count + 1).join(by) + old + parts.slice(count + 1).join(old);
}

const view = (kind: 'keys' | 'values' | 'items', take: (dict: Dict) => Value[]) =>
  of<Dict>(kind, [], (dict) => new Lazy(kind, take(dict), () => `dict_${kind}(${repr(take(dict))})`));

const DICT: Record<string, Method<Dict>> = {
  get: of('get', ['key', 'default'], (dict, given) => dict.get(given.get('key') ?? NONE) ?? given.get('default') ?? NONE),
  keys: view('keys', (dict) => dict.keys),
  values: view('values', (dict) => dict.entries.map(([, value]) => value)),
  items: view('items', (dict) => dict.entries.map((entry) => Tuple.with(entry))),
  copy: of('copy', [], (dict) => dict),
};

const LIST: Record<string, Method<readonly Value[]>> = {
  count: of('count', ['value'], (list, given) => BigInt(list.filter((item) => equal(item, given.get('value') ?? NONE)).length)),
  index: of('index', ['value'], (list, given) => {
    const at = list.findIndex((item) => equal(item, given.get('value') ?? NONE));
    if (at < 0) throw new Error('index: the value is not in the list');
    return BigInt(at);
  }),
  copy: of('copy', [], (list) => list),
};

const NUMBER: Record<string, Method<bigint | number>> = {
  is_integer: of('is_integer', [], (number) => typeof number === 'bigint' || Number.isInteger(number)),
  bit_length: of('bit_length', [], (number) => {
    if (typeof number === 'number') throw new Error('a float has no bit_length');
    return number === 0n ? 0n : BigInt((number < 0n ? -number : number).toString(2).length);
  }),
};

