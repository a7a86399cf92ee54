import { Dict, isNumber, isText, repr, str, Tuple, typeName, type Value } from './values.js';

/** Wider fields are taken for an attack. */
const WIDEST = 1 << 20;

/** How a value is written. */
export interface Spec {
  fill?: string | undefined;
  align?: string | undefined;
  sign?: string | undefined;
  alternate?: boolean;
  group?: string | undefined;
  width?: number | undefined;
  precision?: number | undefined;
  kind: string;
}

/** `template % values`: a tuple is several values, a dict gives values by name, all else is one value. */
export function percent(template: string, values: Value): string {
  const waiting = values instanceof Tuple ? Array.from(values) : [values];
  const next = () => {
    if (waiting.length === 0) throw new Error('not enough values for the format');
    return waiting.shift()!;
  };
  let byName = false;
  const text = template.replace(/%(?:\((.*?)\))?([-+ #0]*)(\*|\d+)?(?:\.(\*|\d*))?[hlL]?([^]?)/gu, (_, name, flags: string, width, precision, kind: string) => {
    if (kind === '%') return '%';
    if (!/^[diouxXeEfFgGcrsa]$/.test(kind)) throw new Error(kind ? `the format has no conversion ${kind}` : 'the format ends within a field');
    const size = (digits: string | undefined) => (digits === undefined ? undefined : digits === '*' ? Number(next()) : Number(digits));
    const [fieldWidth, fieldPrecision] = [size(width), size(precision)];
    let value: Value;
    if (name === undefined) value = next();
    else {
      byName = true;
      const found = values instanceof Dict ? values.get(name) : undefined;
      if (found === undefined) throw new Error(`the format names ${name}, which is not given`);
      value = found;
    }
    const align = flags.includes('-') ? '<' : '>';
    if ('sra'.includes(kind) || (kind === 'c' && isText(value))) {
      return pad([...(kind === 'r' || kind === 'a' ? repr(value) : str(value))].slice(0, fieldPrecision).join(''), { kind, align, width: fieldWidth });
    }
    if (!isNumber(value)) throw new Error(`%${kind} wants a number, not ${typeName(value)}`);
    const zeros = flags.includes('0') && align === '>';
    const sign = flags.includes('+') ? '+' : flags.includes(' ') ? ' ' : undefined;
    const whole = 'diu'.includes(kind);
    const number = whole && typeof value === 'number' ? BigInt(Math.trunc(value)) : value;
    const spec = { fill: zeros ? '0' : ' ', align: zeros ? '=' : align, sign, alternate: flags.includes('#'), width: fieldWidth };
    if ((whole || /[cox]/i.test(kind)) && fieldPrecision !== undefined) throw new Error(`the format has a precision for %${kind}`);
    return formatNumber(number, { ...spec, precision: fieldPrecision, kind: whole ? 'd' : kind });
  });
  const isOptional = byName || values instanceof Dict || (Array.isArray(values) && !(values instanceof Tuple));
  if (waiting.length > 0 && !isOptional) throw new Error('more values than the format has fields');
  return text;
}

/** `template.format(...positional, **named)` */
export function strFormat(template: string, positional: readonly Value[], named: ReadonlyMap<string, Value>): string {
  let at = 0;
  const fill = (template: string, depth: number): string =>
    template.replace(/\{\{|\}\}|\{((?:[^{}]|\{[^{}]*\})*)\}|[{}]/gu, (whole, field: string | undefined) => {
      if (depth === 0 && (whole === '{{' || whole === '}}')) return whole[0]!;
      if (field === undefined || depth > 1) throw new Error('the format has a brace of its own; {{ or }} stands for one');
      const [, name, path, conversion, spec] = /^([^!:.[]*)((?:\.\w+|\[[^\]]+\])*)(?:!([sra]))?(?::([^]*))?$/u.exec(field) ?? [];
      if (name === undefined) throw new Error(`the format has a field {${field}} that is not known`);
      let value = name === '' ? positional[at++] : /^\d+$/.test(name) ? positional[Number(name)] : named.get(name);
      for (const [, attribute, key] of path!.matchAll(/\.(\w+)|\[([^\]]+)\]/gu)) {
        if (attribute !== undefined) throw new Error(`the format has a field {${field}} that is not known`);
        value = value instanceof Dict ? value.get(key!) : Array.isArray(value) ? (value as Value[])[Number(key)] : undefined;
      }
      if (value === undefined) throw new Error(`the format asks for a value {${field}} that is not given`);
      if (conversion) value = conversion === 's' ? str(value) : repr(value);
      return formatOne(value, fill(spec ?? '', depth + 1));
    });
  return fill(template, 0);
}

/** `format(value, spec)` */
function formatOne(value: Value, text: string): string {
  if (text === '') return str(value);
  const parts = /^(?:([^]?)([<>=^]))?([-+ ])?(#)?(0)?(\d+)?([,_])?(?:\.(\d+))?([a-zA-Z%]?)$/u.exec(text);
  if (!parts || (!isText(value) && !isNumber(value))) throw new Error(`${typeName(value)} cannot be formatted as ${text}`);
  const [, fill, align, sign, alternate, zeros, width, group, precision, kind] = parts;
  const number = (digits: string | undefined) => (digits === undefined ? undefined : Number(digits));
  const spec: Spec = { fill: fill || (zeros ? '0' : ' '), align: align ?? (zeros ? '=' : undefined), sign, alternate: !!alternate, group, width: number(width), precision: number(precision), kind: kind! };
  if (isText(value)) {
    if (kind && kind !== 's') throw new Error(`a str cannot be formatted as ${text}`);
    return pad([...str(value)].slice(0, spec.precision).join(''), { ...spec, align: spec.align ?? '<' });
  }
  if (typeof value === 'boolean' && kind === '') throw new Error(`a bool cannot be formatted as ${text}`);
  if (!/^[dfFeEgGxXob%]?$/.test(kind!) || (spec.precision !== undefined && /^[dxXob]$/.test(kind!))) throw new Error(`a number cannot be formatted as ${text}`);
  return formatNumber(value, { ...spec, align: spec.align ?? '>' });
}

function formatNumber(value: boolean | bigint | number, spec: Spec): string {
  const isFloat = typeof value === 'number';
  const { kind, precision = 6, alternate } = spec;
  const negative = Number(value) < 0 || Object.is(value, -0);
  const size = isFloat ? Math.abs(value) : BigInt(value) < 0n ? -BigInt(value) : BigInt(value);
  const float = Number(size);
  if (!Number.isFinite(float) || (alternate && !/[xXob]/.test(kind))) throw new Error('the format is not known for this number');
  let digits: string;
  if (kind === 'c') return String.fromCodePoint(float);
  if (/[dxXob]/.test(kind) || (kind === '' && !isFloat)) {
    if (isFloat) throw new Error(`a float cannot be formatted as ${kind}`);
    const base = { x: 16, X: 16, o: 8, b: 2 }[kind] ?? 10;
    digits = (alternate ? `0${kind.toLowerCase()}` : '') + size.toString(base);
  } else if (/[fF%]/.test(kind)) digits = fixed(kind === '%' ? float * 100 : float, precision) + (kind === '%' ? '%' : '');
  else if (/[eE]/.test(kind)) digits = scientific(float, precision);
  else if (kind === '' && spec.precision === undefined) digits = repr(float);
  else digits = general(float, precision || 1, kind === '');
  if (/[XEG]/.test(kind)) digits = digits.toUpperCase();
  if (spec.group) {
    const [, whole, rest] = /^(\d*)([^]*)$/.exec(digits)!;
    if (/[xXob]/.test(kind)) throw new Error('the format groups digits of base ten only');
    digits = whole!.replace(/\B(?=(?:\d{3})+$)/g, spec.group) + rest;
    if (spec.align === '=') throw new Error('the format groups digits with zeros before them');
  }
  const sign = negative ? '-' : spec.sign && spec.sign !== '-' ? spec.sign : '';
  return spec.align === '=' ? sign + pad(digits, { ...spec, align: '>', width: spec.width === undefined ? undefined : spec.width - sign.length }) : pad(sign + digits, spec);
}

/** As Python rounds: what lies exactly between goes to the even digit. */
export function fixed(value: number, precision: number): string {
  if (precision > 60 || value >= 1e21) throw new Error('a number is too long to write');
  const rounded = value.toFixed(precision);
  const exact = value.toFixed(Math.min(precision + 40, 100));
  const tail = exact.slice(exact.indexOf('.') + 1 + precision);
  const isTie = /^50*$/.test(tail) && /[13579]$/.test(rounded.replace('.', ''));
  if (!isTie) return rounded;
  // Rounded up from the even digit below.
  const digits = (BigInt(rounded.replace('.', '')) - 1n).toString().padStart(precision + 1, '0');
  return precision === 0 ? digits : `${digits.slice(0, -precision)}.${digits.slice(-precision)}`;
}

function scientific(value: number, precision: number): string {
  const [digits, exponent] = value.toExponential(precision).split('e') as [string, string];
  return `${digits}e${exponent[0]}${exponent.slice(1).padStart(2, '0')}`;
}

/** `%g`; of a float without a kind at least one digit stays behind the point. */
function general(value: number, precision: number, keepsPoint: boolean): string {
  const power = value === 0 ? 0 : Number(value.toExponential(precision - 1).split('e')[1]);
  const trim = (digits: string) => (digits.includes('.') ? digits.replace(/\.?0+$/, '') : digits);
  if (power < -4 || power >= precision - (keepsPoint ? 1 : 0)) {
    const [digits, exponent] = scientific(value, precision - 1).split('e') as [string, string];
    return `${trim(digits)}e${exponent}`;
  }
  const text = trim(fixed(value, precision - 1 - power));
  return keepsPoint && !text.includes('.') ? `${text}.0` : text;
}

/** Fills a text to its width. */
export function pad(text: string, { fill = ' ', align, width = 0 }: Spec): string {
  if (width > WIDEST) throw new Error('a field of the format is too wide');
  const missing = Math.max(0, width - [...text].length);
  const left = align === '<' ? 0 : align === '^' ? Math.floor(missing / 2) : missing;
  return fill.repeat(left) + text + fill.repeat(missing - left);
}
