// The Markdown that models write, as elements. It is text from a model: nothing of it is ever HTML.

/** Replaces what an element shows by this text. */
export function showMarkdown(element, text) {
  element.replaceChildren(...blocks(text));
}

function blocks(text) {
  const lines = text.split('\n');
  const levels = headingLevels(lines);
  const out = [];
  let index = 0;
  /** Takes lines as long as they match. */
  const take = (pattern) => {
    const taken = [];
    while (index < lines.length && pattern.test(lines[index])) taken.push(lines[index++]);
    return taken;
  };
  while (index < lines.length) {
    const line = lines[index];
    const heading = /^(#{1,6})\s+(.*)/.exec(line);
    if (/^\s*```/.test(line)) {
      index++;
      const code = take(/^(?!\s*```)/);
      // The end may not be written yet.
      index++;
      out.push(make('pre', [make('code', [code.join('\n')])]));
    } else if (heading) {
      index++;
      out.push(make(`h${Math.min(FIRST_LEVEL + levels.indexOf(heading[1].length), 6)}`, spans(heading[2])));
    } else if (/^\s*[-*+]\s+/.test(line)) {
      out.push(list('ul', take(/^\s*[-*+]\s+|^\s{2,}\S/), /^\s*[-*+]\s+/));
    } else if (/^\s*\d+[.)]\s+/.test(line)) {
      const items = list('ol', take(/^\s*\d+[.)]\s+|^\s{2,}\S/), /^\s*\d+[.)]\s+/);
      items.start = Number.parseInt(line.trim(), 10);
      out.push(items);
    } else if (/^\s*>/.test(line)) {
      out.push(make('blockquote', blocks(take(/^\s*>/).map((quoted) => quoted.replace(/^\s*>\s?/, '')).join('\n'))));
    } else if (line.trim() === '') {
      index++;
    } else {
      const paragraph = take(/^(?!\s*```|#{1,6}\s|\s*[-*+]\s|\s*\d+[.)]\s|\s*>|\s*$)/);
      // A line that begins like a block and is none still is text.
      if (paragraph.length === 0) paragraph.push(lines[index++]);
      out.push(make('p', paragraph.flatMap((part, at) => (at === 0 ? spans(part) : [make('br', []), ...spans(part)]))));
    }
  }
  return out;
}

/** The page has two levels of headings above those of a text. */
const FIRST_LEVEL = 3;

/** The levels of headings that a text has: models begin with any, and readers expect none left out. */
function headingLevels(lines) {
  const found = lines.map((line) => /^(#{1,6})\s/.exec(line)?.[1].length).filter(Boolean);
  return [...new Set(found)].sort();
}

function list(name, lines, marker) {
  const items = [];
  for (const line of lines) {
    if (marker.test(line)) items.push([line.replace(marker, '')]);
    else items.at(-1)?.push(line.trim());
  }
  return make(name, items.map((item) => make('li', spans(item.join(' ')))));
}

const SPAN = /`([^`]+)`|\*\*([^*]+)\*\*|__([^_]+)__|\*([^*\s][^*]*)\*|\[([^\]]+)\]\((https?:[^)\s]+)\)/;

function spans(text) {
  const match = SPAN.exec(text);
  if (!match) return text === '' ? [] : [text];
  const [all, code, strong, strong2, emphasis, label, address] = match;
  return [
    ...(match.index > 0 ? [text.slice(0, match.index)] : []),
    code ? make('code', [code]) : (strong ?? strong2) ? make('strong', spans(strong ?? strong2)) : emphasis ? make('em', spans(emphasis)) : link(label, address),
    ...spans(text.slice(match.index + all.length)),
  ];
}

function link(label, address) {
  const element = make('a', [label]);
  Object.assign(element, { href: address, rel: 'noopener noreferrer', target: '_blank' });
  return element;
}

function make(name, children) {
  const element = document.createElement(name);
  element.append(...children);
  return element;
}
