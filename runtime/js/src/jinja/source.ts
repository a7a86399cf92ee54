import { tokenize } from '@huggingface/jinja';

type Token = ReturnType<typeof tokenize>[number];

/** A test stands as a filter of this name, and the test's own; no filter can be called so. */
export const IS = 'is ';
export const IS_NOT = 'is not ';

/** A tuple of one or no values stands as a call of this; no variable can be called so. */
export const TUPLE = 'tuple of';

/** The tokens of a template, as the parser of @huggingface/jinja takes them. */
export function tokensOf(source: string): Token[] {
  // As in Jinja2, every end of a line is one character, and any space before a block that begins a line goes.
  const lines = source.replace(/\r\n?/g, '\n').replace(/(^|\n)(?:(?!\n)[\s\x1c-\x1f\x85])+(?=\{[%#])/g, '$1');
  const blocks = lines.replace(/(\{%-?\s*)(end)?generation(\s*-?%\})/g, (_, open, end, close) => (end ? `${open}endfilter${close}` : `${open}filter generation${close}`));
  const tokens = tokenize(withPlainLiterals(blocks), { lstrip_blocks: true, trim_blocks: true });
  refuseChains(tokens);
  return tuplesAsCalls(testsAsFilters(tokens));
}

/** Rewrites strings and numbers within tags as the parser knows them. */
function withPlainLiterals(source: string): string {
  const tag = /\{[{%](?:'(?:\\[^]|[^'\\])*'|"(?:\\[^]|[^"\\])*"|[^'"])*?[}%]\}/g;
  const literals = /('(?:\\[^]|[^'\\])*'|"(?:\\[^]|[^"\\])*")|(?<![\w.])(0[xXbBoO]\w+|\d[\d_]*(?:\.\d[\d_]*)?(?:[eE][-+]?\d+)?)(?!\w)/g;
  return source.replace(tag, (text) => text.replace(literals, (_, string, number) => (string === undefined ? plainNumber(number) : plainString(string))));
}

/** As in Python, a backslash at the end of a line joins the lines, and one that escapes nothing stands for itself. */
function plainString(text: string): string {
  return text.replace(/\\(?:\n|([0-7]{1,3})|U([\da-fA-F]{8})|(a)|([^]))/g, (whole, octal, code, bell, c) => {
    if (whole === '\\\n') return '';
    const point = octal !== undefined ? parseInt(octal, 8) : code !== undefined ? parseInt(code, 16) : bell ? 7 : undefined;
    if (point !== undefined) return point < 0x80 ? `\\x${point.toString(16).padStart(2, '0')}` : String.fromCodePoint(point);
    if (c === 'N') throw new Error('characters by name are not known');
    return /[ntrbfvxu'"\\]/.test(c) ? whole : `\\\\${c}`;
  });
}

/** Digits, with a point in floats. */
function plainNumber(text: string): string {
  const digits = text.replaceAll('_', '');
  if (/^0[xbo]/i.test(digits)) return String(BigInt(digits));
  const [, whole, rest = '', exponent] = /^(\d+)(?:\.(\d+))?(?:e([-+]?\d+))?$/i.exec(digits)!;
  if (exponent === undefined) return digits;
  const power = Math.max(-400, Math.min(Number(exponent), 400));
  const all = '0'.repeat(Math.max(0, -power)) + whole + rest.padEnd(Math.max(0, power), '0');
  const point = all.length - Math.max(rest.length, power, 0) + power;
  return `${all.slice(0, point) || '0'}.${all.slice(point) || '0'}`;
}

const isWord = (token: Token | undefined, ...words: string[]) => token?.type === 'Identifier' && words.includes(token.value);

/** The parser cannot tell `a < b < c` from `(a < b) < c`, which mean different things. */
function refuseChains(tokens: readonly Token[]): void {
  const compared = [false];
  tokens.forEach((token, at) => {
    if (/^Open/.test(token.type)) compared.push(false);
    else if (/^Close/.test(token.type)) compared.pop();
    else if (token.type === 'Comma' || token.type === 'Colon' || token.type === 'Equals' || isWord(token, 'and', 'or', 'if', 'else', 'elif', 'for', 'set')) compared[compared.length - 1] = false;
    else if (token.type === 'ComparisonBinaryOperator' || (isWord(token, 'in') && !isWord(tokens[at - 1], 'is'))) {
      if (compared.at(-1)) throw new Error('comparisons in a chain are not known; put brackets around one');
      compared[compared.length - 1] = !isLoop(tokens, at);
    }
  });
}

/** Whether this `in` is the loop's. */
function isLoop(tokens: readonly Token[], at: number): boolean {
  let start = at;
  while (start > 0 && tokens[start]!.type !== 'OpenStatement') start--;
  const before = tokens.slice(start, at);
  return isWord(before[1], 'for') && before.filter((token) => isWord(token, 'in')).length === 0;
}

/** `x is name(y)`, also `x is name y`, as `x | "is name"(y)`, since the parser takes no tests with arguments. */
function testsAsFilters(tokens: readonly Token[]): Token[] {
  const out: Token[] = [];
  const add = (type: Token['type'], value: string) => out.push({ type, value });
  for (let at = 0; at < tokens.length; at++) {
    if (!isWord(tokens[at], 'is') || tokens[at - 1]?.type === 'Dot' || tokens[at + 1]?.type !== 'Identifier') {
      out.push(tokens[at]!);
      continue;
    }
    const isNot = isWord(tokens[at + 1], 'not');
    at += isNot ? 2 : 1;
    add('Pipe', '|');
    add('Identifier', (isNot ? IS_NOT : IS) + tokens[at]!.value);
    const argument = tokens.slice(at + 1, endOfOperand(tokens, at + 1));
    if (argument.length > 0 && argument[0]!.type !== 'OpenParen') {
      add('OpenParen', '(');
      out.push(...argument);
      add('CloseParen', ')');
      at += argument.length;
    }
  }
  return out;
}

/** Where what a test takes without brackets ends: a name or a literal, with its attributes and items. */
function endOfOperand(tokens: readonly Token[], start: number): number {
  const first = tokens[start];
  const isOperand = first && (/Literal$|^OpenSquareBracket|^OpenCurlyBracket/.test(first.type) || (first.type === 'Identifier' && !isWord(first, 'and', 'or', 'else', 'is', 'in', 'not')));
  if (!isOperand) return start;
  let at = afterGroup(tokens, start);
  for (;;) {
    if (tokens[at]?.type === 'Dot') at += 2;
    else if (tokens[at]?.type === 'OpenSquareBracket' || tokens[at]?.type === 'OpenParen') at = afterGroup(tokens, at);
    else return at;
  }
}

/** After this token, or after the bracket that closes it. */
function afterGroup(tokens: readonly Token[], start: number): number {
  let open = 0;
  for (let at = start; at < tokens.length; at++) {
    if (/^Open(?:Paren|Square|Curly)/.test(tokens[at]!.type)) open++;
    else if (/^Close(?:Paren|Square|Curly)/.test(tokens[at]!.type)) open--;
    if (open === 0) return at + 1;
  }
  return tokens.length;
}

/** `(a,)` and `()` as calls; the parser knows tuples of two and more. */
function tuplesAsCalls(tokens: readonly Token[]): Token[] {
  const isCalled = (token: Token | undefined) =>
    (token?.type === 'Identifier' && !isWord(token, 'in', 'and', 'or', 'not', 'if', 'elif', 'else', 'is')) || /^Close(?:Paren|Square|Curly)/.test(token?.type ?? '');
  return tokens.flatMap((token, at): Token[] => {
    if (token.type !== 'OpenParen' || isCalled(tokens[at - 1])) return [token];
    const end = afterGroup(tokens, at) - 1;
    const isTuple = tokens[end - 1]?.type === 'Comma' || end === at + 1;
    return isTuple ? [{ type: 'Identifier', value: TUPLE }, token] : [token];
  });
}
