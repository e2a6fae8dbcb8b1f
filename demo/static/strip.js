// The tiles: which decisions had reasons of their own, the closest first. The server draws the
// pictures: at once those of the first level, then, asked for here, those of tested regions.

const SETTLE = 400; // milliseconds after an answer or an edit until regions are tested

const root = element.querySelector('.nbdt-strip');
const page = document.documentElement;
let request = 0;
let level = '';
let timer = 0;
let blocks = new Map(); // decisions by their record: what stays the same keeps its state and focus

const ask = (wanted) => {
  level = wanted;
  request += 1;
  trigger('deepen', { level, seq: request });
};

const button = (text, act) => {
  const made = make('button', 'nbdt-careful', text);
  made.type = 'button';
  made.addEventListener('click', () => { if (made.ariaDisabled !== 'true') act(); });
  return made;
};

const toggle = (text, name) => {
  const label = make('label', 'nbdt-control');
  const input = make('input');
  input.type = 'checkbox';
  input.addEventListener('change', () => { page.dataset[name] = input.checked ? 'on' : 'off'; });
  page.dataset[name] = 'off';
  label.append(input, make('span', '', text));
  return label;
};

const thumbnails = (side, text) => {
  const row = make('div', 'nbdt-evidence');
  const title = make('p', 'nbdt-small', text);
  const pictures = make('div', 'nbdt-thumbs');
  side.forEach((photo) => {
    const image = picture(photo.picture, `${photo.label}, similarity ${photo.similarity}`);
    image.title = `${photo.label} · ${photo.similarity}`;
    pictures.append(image);
  });
  row.append(title, side.length ? pictures : make('p', 'nbdt-small', 'none'));
  return row;
};

const evidence = (step) => {
  const group = make('div', 'nbdt-evidences');
  if (step.evidence) {
    group.append(thumbnails(step.evidence.chosen, 'Nearest training photographs: ' + step.chosen.name),
      thumbnails(step.evidence.rejected, 'and ' + step.rival.name));
  }
  if (step.sum) group.append(contributions(step.sum));
  return group;
};

const decision = (step, old, isFirst) => {
  const key = isFirst + JSON.stringify(step);
  const block = old.get(key) || make(isFirst ? 'div' : 'details', 'nbdt-decision');
  blocks.set(key, block);
  if (block.firstChild) return block;
  if (!isFirst) block.append(make('summary', '', `${step.question} ${percent(step.chosen.probability)}`));
  block.append(bars(step), ...step.words.map((text) => make('p', 'nbdt-words', text)));
  if (step.alike) block.append(framed(step.alike));
  if (step.evidence || step.sum) block.append(evidence(step));
  return block;
};

const tile = (one, old) => {
  const item = make('li', 'nbdt-card');
  const about = make('div', 'nbdt-about');
  about.append(
    make('p', 'nbdt-eyebrow', `${one.steps} · ${one.decisions[0].question}`),
    make('h3', '', one.title),
    make('p', 'nbdt-tested', one.words),
    ...one.decisions.map((step, i) => decision(step, old, i === 0)),
  );
  item.append(framed(one.pictures), about);
  return item;
};

const heading = make('header', 'nbdt-strip-head');
const title = make('div');
const words = make('p', 'nbdt-lead');
const notice = make('p', 'nbdt-testing');
notice.setAttribute('role', 'status');
const careful = button('Test more regions', () => {
  careful.ariaDisabled = 'true';
  notice.textContent = 'Testing more regions …';
  ask('careful');
});
const controls = make('div', 'nbdt-controls');
controls.append(notice, careful, toggle('Show the grid', 'nbdtGrid'));
title.append(make('h2', '', 'How it got there'), words);
heading.append(title, controls);
const list = make('ol', 'nbdt-cards');
const foot = make('footer', 'nbdt-strip-foot');
root.append(heading, list, foot);

let photograph = '';

const draw = () => {
  const record = parsed(props.record);
  clearTimeout(timer);
  root.hidden = !record;
  if (!record) return;
  const [old, focused] = [blocks, document.activeElement];
  blocks = new Map();
  words.textContent = record.words;
  notice.textContent = record.notice;
  careful.ariaDisabled = String(record.level !== 'default');
  list.replaceChildren(...record.tiles.map((one) => tile(one, old)));
  if (list.contains(focused)) focused.focus({ preventScroll: true });
  foot.replaceChildren(make('p', 'nbdt-small', record.legend));
  if (record.note) foot.append(make('p', 'nbdt-small', record.note));
  if (record.struck.length) foot.append(struck(record.struck));
  if (record.hint) foot.append(make('p', 'nbdt-hint', record.hint));
  // Deeper levels come while a person reads: what was asked about the same answer stays.
  if (!record.level || record.of !== photograph) effect = null;
  photograph = record.of;
  drawEffect();
  if (!record.level) timer = setTimeout(ask, SETTLE, 'default');
};

// Others are served first, or what was asked for has changed: ask again, unless that was done.
const wait = () => {
  const reply = parsed(props.waiting);
  if (!reply || reply.seq !== request) return;
  if (reply.error) notice.textContent = reply.error;
  else timer = setTimeout(ask, SETTLE, level);
};

watch('record', draw);
watch('waiting', wait);
watch('effect', () => {
  effect = parsed(props.effect);
  drawEffect();
});
draw();
