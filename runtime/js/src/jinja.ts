import { parse, Template, tokenize } from '@huggingface/jinja';

/** A chat template that renders as in Python: what @huggingface/jinja has otherwise is written otherwise. */
export class ChatTemplate {
  #template: Template;

  constructor(source: string) {
    this.#template = new Template(withPlainStrings(source));
    rewrite(this.#template.parsed);
  }

  render(values: Record<string, unknown>): string {
    return this.#template.render({ ...values, [FORMAT]: format });
  }
}

/**
 * Rewrites texts within tags: as in Python, a backslash at the end of a line joins the lines, and one that escapes nothing
 * stands for itself.
 */
function withPlainStrings(source: string): string {
  const tag = /\{[{%](?:'(?:\\[^]|[^'\\])*'|"(?:\\[^]|[^"\\])*"|[^'"])*?[}%]\}/g;
  return source.replace(tag, (text) => text.replace(/\\([^])/g, (escape, c) => (c === '\n' ? '' : /[ntrbfvxu'"\\]/.test(c) ? escape : `\\${escape}`)));
}

type Node = { type: string; [field: string]: unknown };

/** Names that no template has. */
const FORMAT = '__format';
const VALUE = '__value';

/** Python's words for what is printed; all else prints itself. */
const TRUE_OR_FALSE = `'True' if ${VALUE} else 'False'`;
const COMPARISONS = ['==', '!=', '<', '<=', '>', '>=', 'in', 'not in', 'not'];
const PRINTED = `(${TRUE_OR_FALSE}) if ${VALUE} is boolean else 'None' if ${VALUE} is none else ${VALUE}`;
/** Where statements stand, so that expressions among them are printed. */
const BODIES = ['body', 'alternate', 'defaultBlock'];

/** Changes the tree: what is printed or joined by `~`, and the filter `format`, which is a function here. */
function rewrite(node: unknown): unknown {
  if (Array.isArray(node)) return node.map(rewrite);
  if (node instanceof Map) return new Map([...node].map(([key, value]) => [rewrite(key), rewrite(value)]));
  if (typeof node !== 'object' || node === null) return node;
  const at = node as Node;
  for (const [field, value] of Object.entries(at)) at[field] = rewrite(value);
  for (const field of BODIES) if (Array.isArray(at[field])) at[field] = at[field].map(printed);
  if (at.type === 'BinaryExpression' && (at.operator as Node).value === '~') Object.assign(at, { left: printed(at.left as Node), right: printed(at.right as Node) });
  const filter = at.type === 'FilterExpression' ? (at.filter as Node) : undefined;
  if (filter?.type === 'CallExpression' && (filter.callee as Node).value === 'format') {
    return Object.assign(expression(`${FORMAT}()`), { args: [at.operand, ...(filter.args as Node[])] });
  }
  return at;
}

/** An expression as Python prints it. Names and fields may be looked at more than once, all else is evaluated once. */
function printed(node: Node): Node {
  if (node.type === 'Identifier' || node.type === 'MemberExpression') return withValue(expression(PRINTED), node) as Node;
  const compares = COMPARISONS.includes((node.operator as Node | undefined)?.value as string);
  return compares || node.type === 'TestExpression' ? (withValue(expression(TRUE_OR_FALSE), node) as Node) : node;
}

function expression(source: string): Node {
  return parse(tokenize(`{{ ${source} }}`)).body[0] as unknown as Node;
}

function withValue(tree: unknown, value: Node): unknown {
  if (typeof tree !== 'object' || tree === null) return tree;
  const at = tree as Node;
  if (at.type === 'Identifier' && at.value === VALUE) return value;
  for (const [field, part] of Object.entries(at)) at[field] = withValue(part, value);
  return at;
}

/** Python's `%`, as far as prompts need it. */
function format(text: string, ...values: unknown[]): string {
  return text.replace(/%(?:\.(\d+))?([%sdf])/g, (_, digits, kind) => {
    if (kind === '%') return '%';
    const value = values.shift();
    if (kind === 's') return typeof value === 'boolean' ? (value ? 'True' : 'False') : String(value ?? 'None');
    return kind === 'd' ? String(Math.trunc(Number(value))) : Number(value).toFixed(Number(digits ?? 6));
  });
}
