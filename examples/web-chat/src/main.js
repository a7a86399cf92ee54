import { Registry } from 'kiln-runtime';
import { loadModelInWorker } from 'kiln-runtime/worker';
import { showMarkdown } from './markdown.js';
import { bytes, lacks, seconds, trouble } from './words.js';

const $ = (id) => document.getElementById(id);
const show = (id, shown = true) => ($(id).hidden = !shown);
const OTHER = 'other';

const registry = new Registry();
let model;
let messages = [];
let running;
let loading;

/** The models that this page offers: models.json beside it, and one named in the address (`?model=`). */
async function listModels() {
  const named = new URLSearchParams(location.search).get('model');
  const models = await fetch('models.json').then((answer) => answer.json(), () => []);
  if (named) models.unshift({ name: named.replace(/\/$/, '').split('/').at(-1), source: named });
  for (const { name, source } of models) $('model').append(new Option(name, source));
  $('model').append(new Option('Another address …', OTHER));
  await describe();
}

/** The chosen model's address; undefined while none is given. */
function source() {
  const chosen = $('model').value === OTHER ? $('address').value.trim() : $('model').value;
  return chosen === '' ? undefined : chosen;
}

let described = 0;

/** Shows what the model needs, before anything large is downloaded. */
async function describe() {
  const turn = ++described;
  show('address-row', $('model').value === OTHER);
  show('lacks', false);
  show('trouble', false);
  show('forget', false);
  $('facts').replaceChildren();
  $('start').disabled = true;
  const chosen = source();
  if (!chosen) return;
  try {
    const [about, size, files, needs, fit] = await Promise.all([registry.describe(chosen), registry.totalSize(chosen), registry.files(chosen), registry.requirements(chosen), registry.fits(chosen)]);
    if (turn !== described) return;
    const here = files.reduce((sum, file) => sum + file.cachedBytes, 0);
    const need = needs.find(({ variant }) => variant === fit.variants[0]) ?? needs.at(-1);
    facts({
      Size: `${count(about.parameters)} parameters`,
      Download: here === size ? 'on this device already' : here > 0 ? `${bytes(size - here)} of ${bytes(size)} left` : bytes(size),
      Memory: `about ${bytes(need.memory.total)} of the graphics device`,
      Reads: `up to ${need.context.toLocaleString('en')} tokens, about ${count(need.context * 0.75)} words`,
    });
    const words = lacks(fit);
    $('lacks').textContent = words;
    show('lacks', words !== '');
    $('start').textContent = here === size ? 'Start' : 'Download and start';
    $('start').disabled = fit.variants.length === 0;
    show('forget', here > 0);
  } catch (error) {
    if (turn === described) complain(error);
  }
}

function facts(entries) {
  $('facts').replaceChildren(...Object.entries(entries).flatMap(([name, value]) => [Object.assign(document.createElement('dt'), { textContent: name }), Object.assign(document.createElement('dd'), { textContent: value })]));
}

function count(number) {
  const [unit, name] = number >= 1e9 ? [1e9, ' billion'] : number >= 1e6 ? [1e6, ' million'] : [1, ''];
  return `${Number((number / unit).toPrecision(3)).toLocaleString('en')}${name}`;
}

function complain(error) {
  $('trouble').textContent = trouble(error);
  show('trouble');
}

async function load() {
  show('trouble', false);
  show('loading');
  show('cancel');
  show('forget', false);
  $('start').disabled = true;
  $('loading-text').textContent = 'Looking at the model …';
  $('loading-files').replaceChildren();
  loading = new AbortController();
  try {
    model = await loadModelInWorker(source(), { progress: showProgress, signal: loading.signal, pace: pace() });
    await begin();
  } catch (error) {
    await describe();
    if (error.name !== 'AbortError') complain(error);
    // The button that had it is gone.
    $('start').focus();
  } finally {
    show('loading', false);
    show('cancel', false);
  }
}

let told = 0;

function showProgress({ phase, totalLoaded, totalBytes, files, rate, secondsLeft, cachedBytes }) {
  $('loading-total').value = totalBytes > 0 ? totalLoaded / totalBytes : 0;
  const where = cachedBytes > totalLoaded / 2 ? 'Reading' : 'Downloading';
  const text = phase === 'ready' || totalLoaded === totalBytes ? 'Preparing the graphics device …' : `${where}: ${bytes(totalLoaded)} of ${bytes(totalBytes)}${rate > 0 ? `, ${bytes(rate)}/s, ${seconds(secondsLeft)} left` : ''}`;
  // Screen readers would read every change of a live text.
  if (performance.now() - told > 1000 || totalLoaded === totalBytes) {
    $('loading-text').textContent = text;
    told = performance.now();
  }
  const list = $('loading-files');
  if (files.length < 2) return;
  while (list.children.length < files.length) {
    const item = document.createElement('li');
    item.append(document.createElement('span'), Object.assign(document.createElement('progress'), { max: 1 }));
    list.append(item);
  }
  for (const [index, file] of files.entries()) {
    const [name, bar] = list.children[index].children;
    name.textContent = file.file;
    bar.value = file.total > 0 ? file.loaded / file.total : 0;
    bar.setAttribute('aria-label', file.file);
  }
}

/** From the choice of a model to the conversation. */
async function begin() {
  const { temperature } = model.manifest.model.sampling;
  $('temperature').value = temperature ?? 0;
  document.title = `${model.manifest.model.name} · Kiln chat`;
  show('setup', false);
  for (const id of ['conversation', 'composer', 'new', 'skip']) show(id);
  $('device').textContent = `${model.report.adapter}, ${model.report.variant}`;
  const ready = `${model.manifest.model.name} is ready, after ${(model.report.totalMs / 1000).toFixed(1)} s.`;
  $('log').append(Object.assign(document.createElement('p'), { className: 'hint', textContent: `${ready} Write something below. Small models are often wrong: check what matters.` }));
  $('input').focus();
  await showMemory();
}

async function showMemory() {
  $('memory').textContent = `${bytes((await model.memory()).allocated)} of memory`;
}

/** For those who hear the page. */
function note(text) {
  $('spoken').textContent = text;
}

function addMessage(role, text) {
  const message = document.createElement('article');
  message.className = `message ${role}`;
  const who = Object.assign(document.createElement('p'), { className: 'who', textContent: role === 'user' ? 'You' : model.manifest.model.name });
  const body = Object.assign(document.createElement('div'), { className: 'text' });
  if (role === 'user') body.textContent = text;
  else showMarkdown(body, text);
  message.append(who, body);
  $('log').append(message);
  return { message, body };
}

/** What the model thinks, folded away above its answer. */
function showThoughts(body, text) {
  let thoughts = body.previousElementSibling;
  if (!thoughts.matches('.thoughts')) {
    thoughts = Object.assign(document.createElement('details'), { className: 'thoughts' });
    thoughts.append(Object.assign(document.createElement('summary'), { textContent: 'Thoughts' }), document.createElement('p'));
    body.before(thoughts);
  }
  thoughts.lastElementChild.textContent = text;
}

const nearEnd = () => innerHeight + scrollY > document.documentElement.scrollHeight - 120;

async function send() {
  const text = $('input').value.trim();
  if (text === '' || running) return;
  $('input').value = '';
  resize();
  addMessage('user', text);
  // A new conversation may begin while this one is answered.
  const turns = messages;
  turns.push({ role: 'user', content: text });
  const { message, body } = addMessage('assistant', '');
  message.classList.add('working');
  // A log is read aloud as it grows; an answer is better read as a whole, when it is there.
  message.setAttribute('aria-busy', 'true');
  scrollTo({ top: document.documentElement.scrollHeight });
  running = new AbortController();
  show('send', false);
  show('stop');
  note('The model answers.');
  model.setPace(pace());
  let answer = '';
  let thoughts = '';
  let tokens = 0;
  let first;
  let drawn;
  const draw = () => {
    drawn = undefined;
    const follow = nearEnd();
    if (thoughts !== '') showThoughts(body, thoughts);
    showMarkdown(body, answer);
    if (follow) scrollTo({ top: document.documentElement.scrollHeight });
  };
  const system = $('system').value.trim();
  const conversation = system === '' ? turns : [{ role: 'system', content: system }, ...turns];
  let foot = '';
  try {
    const generation = model.generate(conversation, { signal: running.signal, temperature: Number($('temperature').value), maxTokens: Number($('max-tokens').value) });
    for await (const token of generation) {
      if (token.channel === 'reasoning') thoughts += token.text;
      else answer += token.text;
      first ??= performance.now();
      const time = performance.now() - first;
      if (++tokens > 1 && time > 0) $('speed').textContent = `${(((tokens - 1) * 1000) / time).toFixed(1)} tokens/s`;
      drawn ??= requestAnimationFrame(draw);
    }
    const { stop } = await generation.result;
    if (answer === '') foot = 'The model gave no answer.';
    if (stop === 'max-tokens') foot = 'The answer reached the longest length in the settings.';
    if (stop === 'context-full') foot = 'The conversation is as long as the model can follow; begin a new one.';
  } catch (error) {
    foot = error.name === 'AbortError' ? 'Stopped.' : trouble(error);
    if (error.name !== 'AbortError') message.classList.add('trouble');
  }
  if (drawn) cancelAnimationFrame(drawn);
  draw();
  if (foot !== '') message.append(Object.assign(document.createElement('p'), { className: 'foot', textContent: foot }));
  message.classList.remove('working');
  message.removeAttribute('aria-busy');
  note(foot === '' ? 'The answer is complete.' : foot);
  if (answer === '') turns.pop();
  else turns.push({ role: 'assistant', content: answer, reasoning: thoughts === '' ? undefined : thoughts });
  running = undefined;
  show('stop', false);
  show('send');
  $('input').focus();
  await showMemory().catch(() => {});
}

function pace() {
  const limit = Number($('pace').value);
  return { tokensPerSecond: limit > 0 ? limit : undefined, pauseWhenHidden: $('pause').checked };
}

function resize() {
  $('input').style.height = 'auto';
  $('input').style.height = `${$('input').scrollHeight + 2}px`;
}

function showConnection() {
  show('connection', !navigator.onLine);
}

$('model').addEventListener('change', describe);
$('address').addEventListener('change', describe);
$('load').addEventListener('submit', (event) => {
  event.preventDefault();
  void load();
});
$('cancel').addEventListener('click', () => loading?.abort());
$('forget').addEventListener('click', async () => {
  await registry.clear(source());
  await describe();
  $('start').focus();
});
$('composer').addEventListener('submit', (event) => {
  event.preventDefault();
  void send();
});
$('stop').addEventListener('click', () => running?.abort());
$('input').addEventListener('input', resize);
$('input').addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    void send();
  }
});
document.addEventListener('keydown', (event) => {
  if (event.key === 'Escape') running?.abort();
});
$('new').addEventListener('click', () => {
  running?.abort();
  messages = [];
  $('log').replaceChildren();
  $('input').focus();
});
$('pace').addEventListener('change', () => model?.setPace(pace()));
$('pause').addEventListener('change', () => model?.setPace(pace()));
addEventListener('online', showConnection);
addEventListener('offline', showConnection);
showConnection();
if ('serviceWorker' in navigator && import.meta.env.PROD) void navigator.serviceWorker.register('sw.js');
void listModels();
