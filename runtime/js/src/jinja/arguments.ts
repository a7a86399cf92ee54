import { isNumber, isText, NONE, str, truth, Undefined, type Value } from './values.js';

/** The arguments of a call by name, as Python binds them. */
export class Arguments {
  #values = new Map<string, Value>();

  constructor(
    private what: string,
    names: readonly string[],
    positional: readonly Value[],
    named: ReadonlyMap<string, Value>,
  ) {
    if (positional.length > names.length) throw new Error(`${what} takes at most ${names.length} arguments`);
    positional.forEach((value, at) => this.#values.set(names[at]!, value));
    for (const [name, value] of named) {
      if (!names.includes(name) || this.#values.has(name)) throw new Error(`${what} takes no argument ${name}, or has it already`);
      this.#values.set(name, value);
    }
  }

  get(name: string): Value | undefined {
    return this.#values.get(name);
  }

  needed(name: string): Value {
    const value = this.get(name);
    if (value === undefined) throw new Error(`${this.what} wants ${name}`);
    return value;
  }

  /** Not given, or None. */
  lacks(name: string): boolean {
    const value = this.get(name);
    return value === undefined || value === NONE || value instanceof Undefined;
  }

  flag(name: string): boolean {
    const value = this.get(name);
    return value !== undefined && truth(value);
  }

  text(name: string): string;
  text<T>(name: string, otherwise: T): string | T;
  text<T>(name: string, otherwise?: T): string | T {
    const value = this.get(name);
    if (this.lacks(name) && arguments.length > 1) return otherwise as T;
    if (value === undefined || !isText(value)) throw new Error(`${this.what} wants a text`);
    return str(value);
  }

  integer(name: string, otherwise: number): number {
    const value = this.get(name);
    if (this.lacks(name)) return otherwise;
    if (!isNumber(value!) || typeof value === 'number') throw new Error(`${this.what} wants a whole number`);
    return Number(value);
  }
}
