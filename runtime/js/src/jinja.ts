import { parse } from '@huggingface/jinja';
import { strftime } from './jinja/date.js';
import { Arguments } from './jinja/arguments.js';
import { type Node, render, Scope } from './jinja/interpreter.js';
import { range } from './jinja/operators.js';
import { TUPLE, tokensOf } from './jinja/source.js';
import { type Callable, Dict, fromJs, isNumber, items, Namespace, NONE, str, Tuple, type Value } from './jinja/values.js';

/** The error of a template's own `raise_exception`. */
export class Refusal extends Error {}

/**
 * A chat template that renders as Jinja2 does, as transformers sets it up, or throws. @huggingface/jinja parses it; its own
 * values are JavaScript's, which print and compare otherwise than Python's.
 */
export class ChatTemplate {
  #statements: readonly Node[];

  constructor(source: string) {
    this.#statements = parse(tokensOf(source)).body as unknown as Node[];
  }

  render(values: Record<string, unknown>): string {
    const scope = new Scope();
    for (const [name, value] of Object.entries(GLOBALS)) scope.set(name, value);
    for (const [name, value] of Object.entries(values)) if (value !== undefined) scope.set(name, fromJs(value));
    return render(this.#statements, new Scope(scope));
  }
}

const dict: Callable = (positional, named) => {
  if (positional.length > 1) throw new Error('dict wants one value');
  const [source] = positional;
  const entries = source === undefined ? [] : source instanceof Dict ? source.entries : items(source).map((pair) => items(pair) as [Value, Value]);
  return new Dict([...entries, ...named]);
};

const GLOBALS: Record<string, Value> = {
  ...Object.fromEntries([['true', true] as const, ['false', false] as const, ['none', NONE] as const].flatMap(([name, value]) => [[name, value], [name[0]!.toUpperCase() + name.slice(1), value]])),
  dict,
  [TUPLE]: (positional) => Tuple.with(positional),
  namespace: (positional, named) => new Namespace(new Map((dict(positional, named) as Dict).entries.map(([key, value]) => [str(key), value]))),
  range: (positional) => range(...positional.map((bound) => (isNumber(bound) && typeof bound !== 'number' ? Number(bound) : NaN))),
  raise_exception: (positional, named) => {
    throw new Refusal(new Arguments('raise_exception', ['message'], positional, named).text('message'));
  },
  strftime_now: (positional, named) => strftime(new Arguments('strftime_now', ['format'], positional, named).text('format'), new Date()),
};
