import { Dict, floatRepr, isList, isText, Markup, NONE, str, truth, typeName, Undefined, type Value } from './values.js';

/** What `tojson` takes, in this order by position. */
export const JSON_OPTIONS = ['ensure_ascii', 'indent', 'separators', 'sort_keys'] as const;

/** `json.dumps(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False)` */
export function toJson(value: Value, [ascii, indent, separators, sortKeys]: readonly Value[]): string {
  const isGiven = (option: Value | undefined): option is Value => option !== undefined && option !== NONE && !(option instanceof Undefined);
  const step = !isGiven(indent) ? undefined : isText(indent) ? str(indent) : ' '.repeat(Math.min(Math.max(Number(indent), 0), 1000));
  let [item, key] = [step === undefined ? ', ' : ',', ': '];
  if (isGiven(separators)) {
    if (!isList(separators) || separators.length !== 2 || !separators.every(isText)) throw new Error('tojson: separators must be two texts');
    [item, key] = separators.map(str) as [string, string];
  }
  const line = (depth: number) => (step === undefined ? '' : `\n${step.repeat(depth)}`);
  const container = (open: string, close: string, parts: string[], depth: number) =>
    parts.length === 0 ? open + close : open + parts.map((part) => line(depth + 1) + part).join(item) + line(depth) + close;
  const write = (value: Value, depth: number): string => {
    if (value === NONE) return 'null';
    if (typeof value === 'boolean' || typeof value === 'bigint') return String(value);
    if (typeof value === 'number') return Number.isFinite(value) ? floatRepr(value) : Number.isNaN(value) ? 'NaN' : value > 0 ? 'Infinity' : '-Infinity';
    if (typeof value === 'string' || value instanceof Markup) return quote(str(value), ascii !== undefined && truth(ascii));
    if (isList(value)) return container('[', ']', Array.from(value, (part) => write(part, depth + 1)), depth);
    if (value instanceof Dict) {
      let { entries } = value;
      if (isGiven(sortKeys) && truth(sortKeys)) {
        if (!entries.every(([name]) => isText(name))) throw new Error('tojson sorts keys that are texts only');
        entries = entries.sort(([a], [b]) => (str(a) < str(b) ? -1 : 1));
      }
      const name = (name: Value) => (isText(name) ? write(name, 0) : isList(name) ? fail(name) : `"${write(name, 0)}"`);
      return container('{', '}', entries.map(([field, part]) => name(field) + key + write(part, depth + 1)), depth);
    }
    return fail(value);
  };
  return write(value, 0);
}

function fail(value: Value): never {
  throw new Error(`tojson cannot write ${typeName(value)}`);
}

function quote(text: string, ascii: boolean): string {
  const quoted = JSON.stringify(text);
  return ascii ? quoted.replace(/[\x7f-\uffff]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`) : quoted;
}
