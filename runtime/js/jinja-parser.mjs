// What the bundle takes of @huggingface/jinja. From the package's entry, its interpreter would come along.
export { tokenize } from './node_modules/@huggingface/jinja/src/lexer.ts';
export { parse } from './node_modules/@huggingface/jinja/src/parser.ts';
