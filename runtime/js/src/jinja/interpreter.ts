import { filter } from './filters.js';
import { method } from './methods.js';
import { binary, slice } from './operators.js';
import { IS, IS_NOT } from './source.js';
import { holds } from './tests.js';
import { type Callable, Dict, equal, isArray, isNumber, isText, items, Namespace, NONE, str, truth, Tuple, typeName, Undefined, type Value } from './values.js';

/** A node of the tree that @huggingface/jinja parses; its fields depend on its type. */
export type Node = { type: string; [field: string]: any };

/** Variables of a block, which sees those around it. */
export class Scope {
  #variables = new Map<string, Value>();

  constructor(private around?: Scope) {}

  get(name: string): Value {
    return this.#variables.get(name) ?? this.around?.get(name) ?? new Undefined(name);
  }

  set(name: string, value: Value): void {
    this.#variables.set(name, value);
  }
}

/** Ends a round of a loop, or all of them. */
class Jump {
  constructor(readonly kind: 'Break' | 'Continue') {}
}

/** Deeper ones are taken for endless. */
const DEEPEST = 200;
let depth = 0;

/** What statements print. */
export function render(nodes: readonly Node[], scope: Scope): string {
  return nodes.map((node) => statement(node, scope)).join('');
}

function statement(node: Node, scope: Scope): string {
  switch (node.type) {
    case 'Comment': return '';
    case 'If': return render(truth(evaluate(node.test, scope)) ? node.body : node.alternate, scope);
    case 'For': return loop(node, scope);
    case 'Break':
    case 'Continue': throw new Jump(node.type);
    case 'Set': return set(node, scope);
    case 'Macro':
      scope.set(node.name.value, macro(node.name.value, node.args, node.body, scope));
      return '';
    case 'CallStatement': {
      const caller = macro('caller', node.callerArgs ?? [], node.body, scope);
      return str(call(evaluate(node.call.callee, scope), node.call.args, scope, caller));
    }
    case 'FilterStatement': return str(applyFilter(node.filter, render(node.body, new Scope(scope)), scope));
    default: return str(evaluate(node, scope));
  }
}

function set({ assignee, value, body }: Node, scope: Scope): string {
  if (value) {
    assign(assignee, evaluate(value, scope), scope);
    return '';
  }
  let text: Value = render(body, new Scope(scope));
  const filters: Node[] = [];
  while (assignee.type === 'FilterExpression') {
    filters.unshift(assignee.filter);
    assignee = assignee.operand;
  }
  for (const node of filters) text = applyFilter(node, text, scope);
  assign(assignee, text, scope);
  return '';
}

function assign(target: Node, value: Value, scope: Scope): void {
  if (target.type === 'Identifier') scope.set(target.value, value);
  else if (target.type === 'TupleLiteral') {
    const parts = items(value);
    if (parts.length !== target.value.length) throw new Error(`${parts.length} values for ${target.value.length} names`);
    target.value.forEach((name: Node, at: number) => assign(name, parts[at]!, scope));
  } else {
    const space = target.type === 'MemberExpression' && !target.computed ? evaluate(target.object, scope) : undefined;
    if (!(space instanceof Namespace)) throw new Error('only variables and fields of a namespace can be set');
    space.fields.set(target.property.value, value);
  }
}

function loop({ loopvar, iterable, body, defaultBlock }: Node, scope: Scope): string {
  const test: Node | undefined = iterable.type === 'SelectExpression' ? iterable.test : undefined;
  const all = evaluate(test ? iterable.lhs : iterable, scope);
  if (all === NONE || isNumber(all)) throw new Error(`${typeName(all)} has no items`);
  const taken = items(all).filter((item) => {
    if (!test) return true;
    const inner = new Scope(scope);
    assign(loopvar, item, inner);
    return truth(evaluate(test, inner));
  });
  if (taken.length === 0) return render(defaultBlock, new Scope(scope));
  const state = new LoopState(taken);
  let text = '';
  for (const item of taken) {
    const inner = new Scope(scope);
    inner.set('loop', state);
    assign(loopvar, item, inner);
    // What was printed before a jump stays.
    for (const node of body as Node[]) {
      const [printed, jump] = upToJump(node, inner);
      text += printed;
      if (jump?.kind === 'Break') return text;
      if (jump) break;
    }
    state.at++;
  }
  return text;
}

/** What a statement prints, perhaps until a jump within its branches. */
function upToJump(node: Node, scope: Scope): [string, Jump | undefined] {
  if (node.type !== 'If') {
    try {
      return [statement(node, scope), undefined];
    } catch (error) {
      if (error instanceof Jump) return ['', error];
      throw error;
    }
  }
  let text = '';
  for (const inner of (truth(evaluate(node.test, scope)) ? node.body : node.alternate) as Node[]) {
    const [printed, jump] = upToJump(inner, scope);
    text += printed;
    if (jump) return [text, jump];
  }
  return [text, undefined];
}

/** The variable `loop`. */
class LoopState extends Namespace {
  at = 0;
  #last: readonly Value[] | undefined;

  constructor(private all: readonly Value[]) {
    super(new Map());
  }

  field(name: string): Value {
    const { all, at } = this;
    switch (name) {
      case 'index': return BigInt(at + 1);
      case 'index0': return BigInt(at);
      case 'revindex': return BigInt(all.length - at);
      case 'revindex0': return BigInt(all.length - at - 1);
      case 'first': return at === 0;
      case 'last': return at === all.length - 1;
      case 'length': return BigInt(all.length);
      // Loops that call themselves are not known.
      case 'depth': return 1n;
      case 'depth0': return 0n;
      case 'previtem': return all[at - 1] ?? new Undefined(name);
      case 'nextitem': return all[at + 1] ?? new Undefined(name);
      case 'cycle': return (values) => values[at % values.length]!;
      case 'changed': return (values) => {
        const isSame = this.#last !== undefined && equal([...this.#last], [...values]);
        this.#last = values;
        return !isSame;
      };
      default: return new Undefined(name);
    }
  }
}

function mentions(node: unknown, name: string): boolean {
  if (typeof node !== 'object' || node === null) return false;
  if ((node as Node).type === 'Identifier') return (node as Node).value === name;
  return (node instanceof Map ? [...node].flat() : Object.values(node)).some((part) => mentions(part, name));
}

function macro(name: string, parameters: readonly Node[], body: readonly Node[], scope: Scope): Callable {
  const [takesMore, takesNamed, takesCaller] = ['varargs', 'kwargs', 'caller'].map((name) => mentions(body, name));
  const called: Callable = (positional, named) => {
    const inner = new Scope(scope);
    const rest = new Map(named);
    const more = positional.slice(parameters.length);
    const caller = rest.get('caller');
    rest.delete('caller');
    if (caller !== undefined && !takesCaller) throw new Error(`the macro ${name} calls no caller`);
    if (takesCaller) inner.set('caller', caller ?? new Undefined('caller'));
    parameters.forEach((parameter, at) => {
      const key = parameter.type === 'Identifier' ? parameter.value : parameter.key.value;
      if (at < positional.length && rest.has(key)) throw new Error(`the macro ${name} has ${key} twice`);
      const given = at < positional.length ? positional[at]! : rest.get(key);
      rest.delete(key);
      inner.set(key, given ?? (parameter.type === 'Identifier' ? new Undefined(key) : evaluate(parameter.value, inner)));
    });
    if ((more.length > 0 && !takesMore) || (rest.size > 0 && !takesNamed)) throw new Error(`the macro ${name} takes fewer arguments`);
    if (takesMore) inner.set('varargs', Tuple.with(more));
    if (takesNamed) inner.set('kwargs', new Dict(rest));
    if (++depth > DEEPEST) throw new Error('macros call each other without end');
    try {
      return render(body, inner);
    } finally {
      depth--;
    }
  };
  return Object.defineProperty(called, 'name', { value: name });
}

function evaluate(node: Node, scope: Scope): Value {
  switch (node.type) {
    case 'IntegerLiteral':
      if (!Number.isSafeInteger(node.value)) throw new Error(`the number ${node.value} is too large`);
      return BigInt(node.value);
    case 'FloatLiteral':
    case 'StringLiteral': return node.value;
    case 'ArrayLiteral': return node.value.map((item: Node) => evaluate(item, scope));
    case 'TupleLiteral': return Tuple.with(node.value.map((item: Node) => evaluate(item, scope)));
    case 'ObjectLiteral': return new Dict([...(node.value as Map<Node, Node>)].map(([key, value]) => [evaluate(key, scope), evaluate(value, scope)]));
    case 'Identifier': return scope.get(node.value);
    case 'Ternary': return evaluate(truth(evaluate(node.condition, scope)) ? node.trueExpr : node.falseExpr, scope);
    case 'SelectExpression': return truth(evaluate(node.test, scope)) ? evaluate(node.lhs, scope) : new Undefined('the branch without else');
    case 'FilterExpression': return applyFilter(node.filter, evaluate(node.operand, scope), scope);
    case 'MemberExpression': return member(node, scope);
    case 'CallExpression': return call(callee(node.callee, scope), node.args, scope);
    case 'UnaryExpression': return unary(node.operator.value, evaluate(node.argument, scope));
    case 'BinaryExpression': {
      const left = evaluate(node.left, scope);
      const operator: string = node.operator.value;
      if (operator === 'and' || operator === 'or') return truth(left) === (operator === 'or') ? left : evaluate(node.right, scope);
      return binary(operator, left, evaluate(node.right, scope));
    }
    default: throw new Error(`${node.type} is not known`);
  }
}

function unary(operator: string, value: Value): Value {
  if (operator === 'not') return !truth(value);
  // 0 - 0.0 would lose the sign.
  return operator === '-' && typeof value === 'number' ? -value : binary(operator, 0n, value);
}

function member({ object, property, computed }: Node, scope: Scope): Value {
  const value = evaluate(object, scope);
  if (value instanceof Undefined) throw new Error(`${value.name} is not there`);
  if (!computed) return attribute(value, property.type === 'Identifier' ? property.value : BigInt(property.value));
  if (property.type === 'SliceExpression') {
    return slice(value, [property.start, property.stop, property.step].map((bound) => (bound ? evaluate(bound, scope) : NONE)));
  }
  return item(value, evaluate(property, scope));
}

/** `value.name`: a method before an item of this name. */
function attribute(value: Value, name: string | bigint): Value {
  if (typeof value === 'function') {
    if (name === 'name') return value.name;
    throw new Error(`${String(name)} of a function is not known`);
  }
  const found = typeof name === 'string' ? (value instanceof LoopState ? value.field(name) : method(value, name)) : undefined;
  return found ?? item(value, name);
}

function item(value: Value, key: Value): Value {
  const missing = new Undefined(isText(key) ? str(key) : typeName(key));
  if (value instanceof LoopState) return isText(key) ? value.field(str(key)) : missing;
  if (value instanceof Namespace) return (isText(key) ? value.fields.get(str(key)) : undefined) ?? missing;
  if (value instanceof Dict) return value.get(key) ?? missing;
  const all: readonly Value[] | undefined = isText(value) ? [...str(value)] : isArray(value) ? value : undefined;
  if (all && (typeof key === 'bigint' || typeof key === 'boolean')) return all.at(Number(key)) ?? missing;
  // The groups of `groupby` have names.
  return all && isText(key) && Object.hasOwn(all, str(key)) && ['grouper', 'list'].includes(str(key)) ? (all as unknown as Record<string, Value>)[str(key)]! : missing;
}

/** What is called; the methods of values that have not what is asked for are named in the error. */
function callee(node: Node, scope: Scope): Value {
  const value = evaluate(node, scope);
  if (typeof value !== 'function') {
    const name = node.type === 'MemberExpression' ? node.property.value : node.value;
    throw new Error(`${typeof name === 'string' ? name : typeName(value)} is no function`);
  }
  return value;
}

function call(target: Value, args: readonly Node[], scope: Scope, caller?: Callable): Value {
  if (typeof target !== 'function') throw new Error(`${typeName(target)} is no function`);
  const [positional, named] = evaluateArguments(args, scope);
  if (caller) named.set('caller', caller);
  return target(positional, named);
}

function evaluateArguments(args: readonly Node[], scope: Scope): [Value[], Map<string, Value>] {
  const positional: Value[] = [];
  const named = new Map<string, Value>();
  for (const argument of args) {
    if (argument.type === 'KeywordArgumentExpression') named.set(argument.key.value, evaluate(argument.value, scope));
    else if (argument.type === 'SpreadExpression') positional.push(...items(evaluate(argument.argument, scope)));
    else if (argument.type === 'KeywordSpreadExpression') {
      const dict = evaluate(argument.argument, scope);
      if (!(dict instanceof Dict)) throw new Error('arguments by name come from a dict');
      for (const [key, value] of dict.entries) named.set(str(key), value);
    } else positional.push(evaluate(argument, scope));
  }
  return [positional, named];
}

/** A filter, or a test that stands as one. */
function applyFilter(node: Node, value: Value, scope: Scope): Value {
  const isCall = node.type === 'CallExpression';
  const name: string = (isCall ? node.callee : node).value;
  const [positional, named] = isCall ? evaluateArguments(node.args, scope) : [[], new Map<string, Value>()];
  const prefix = [IS_NOT, IS].find((prefix) => name.startsWith(prefix));
  if (prefix === undefined) return filter(name, value, positional, named);
  if (named.size > 0) throw new Error(`the test ${name.slice(prefix.length)} takes no names`);
  return holds(name.slice(prefix.length), value, positional) === (prefix === IS);
}
