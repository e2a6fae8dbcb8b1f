// The decision strip: one card a step. Opacity, raw resolution and comparison need no server.

const root = element.querySelector('.nbdt-strip');
const page = document.documentElement;

const slider = () => {
  const label = make('label', 'nbdt-control', 'Heat map');
  const input = make('input');
  Object.assign(input, { type: 'range', min: 0, max: 100, step: 5, value: 75 });
  const set = () => {
    page.style.setProperty('--nbdt-heat', input.value / 100);
    input.setAttribute('aria-valuetext', input.value + ' % opaque');
  };
  input.addEventListener('input', set);
  set();
  label.append(input);
  return label;
};

const toggle = (text, name) => {
  const label = make('label', 'nbdt-control nbdt-switch');
  const input = make('input');
  input.type = 'checkbox';
  input.addEventListener('change', () => { page.dataset[name] = input.checked ? 'on' : 'off'; });
  page.dataset[name] = 'off';
  label.append(input, make('span', '', text));
  return label;
};

const controls = () => {
  const group = make('div', 'nbdt-controls');
  group.setAttribute('role', 'group');
  group.setAttribute('aria-label', 'How the maps are shown');
  group.append(slider(), toggle('Raw resolution', 'nbdtRaw'), toggle('Compare with plain Grad-CAM', 'nbdtFlat'));
  return group;
};

const legend = (record) => {
  const line = make('p', 'nbdt-legend');
  const scale = make('span', 'nbdt-scale');
  scale.setAttribute('aria-hidden', 'true');
  line.append(make('span', '', 'against'), scale, make('span', '', 'for the step'),
    make('span', 'nbdt-legend-note', `Red parts of the photograph supported the step that was taken, blue parts opposed it; one colour scale for all. The network sees ${record.resolution} positions; between them the maps are smoothed.`));
  return line;
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
  group.append(thumbnails(step.evidence.chosen, 'Nearest training photographs: ' + step.chosen.name),
    thumbnails(step.evidence.rejected, 'and ' + step.rival.name));
  return group;
};

const card = (record, step, number) => {
  const item = make('li', 'nbdt-card');
  item.append(
    make('p', 'nbdt-eyebrow', `Step ${number} of ${record.steps.length}`),
    make('h3', 'nbdt-question', step.question),
    layered(record.photo, step.map, record.scale, step.label),
    bars(step),
    make('p', 'nbdt-words', step.sentence),
  );
  const below = make('div', 'nbdt-evidences');
  if (step.evidence) below.append(evidence(step));
  if (step.sum) below.append(contributions(step.sum));
  if (step.evidence || step.sum) item.append(below);
  return item;
};

const flat = (record) => {
  const item = make('li', 'nbdt-card nbdt-flat');
  item.append(
    make('p', 'nbdt-eyebrow', 'For comparison'),
    make('h3', 'nbdt-question', 'Plain Grad-CAM: ' + record.flat.name),
    layered(record.photo, record.flat.map, record.flat.scale, record.flat.label),
    make('p', 'nbdt-words', 'One map for the whole answer, as without a hierarchy: it cannot show which step a region decided. Its colours have their own scale.'),
  );
  return item;
};

const side = (record, { name, probability, map }) => {
  const figure = make('figure');
  const label = `The photograph, coloured by what supports and opposes ${name}`;
  figure.append(layered(record.photo, map, record.stop.scale, label), make('figcaption', '', `${name}, ${percent(probability)}`));
  return figure;
};

const stopped = (record) => {
  const sides = make('div', 'nbdt-stop-sides');
  sides.append(...record.stop.sides.map((one) => side(record, one)));
  return [
    make('p', 'nbdt-eyebrow', 'Where the answer stops'),
    make('h3', 'nbdt-question', record.stop.question),
    make('p', 'nbdt-words', record.stop.text),
    sides,
    make('p', 'nbdt-small', 'What supports each of the two is red, what opposes it blue; one scale for both. The map of that step below shows where they differ.'),
  ];
};

const heading = make('header', 'nbdt-strip-head');
const title = make('div');
const words = make('p', 'nbdt-lead');
title.append(make('h2', '', 'How it got there'), words);
heading.append(title, controls());
const list = make('ol', 'nbdt-cards');
list.tabIndex = 0;
list.setAttribute('aria-label', 'The decisions, one after another');
const foot = make('footer', 'nbdt-strip-foot');
const stop = make('section', 'nbdt-stop');
root.append(heading, stop, list, foot);

const draw = () => {
  const record = parsed(props.record);
  root.hidden = !record;
  if (!record) return;
  words.textContent = record.words;
  stop.hidden = !record.stop;
  stop.replaceChildren(...(record.stop ? stopped(record) : []));
  list.replaceChildren(...record.steps.map((step, i) => card(record, step, i + 1)), flat(record));
  foot.replaceChildren(legend(record));
  if (record.note) foot.append(make('p', 'nbdt-small', record.note));
  if (record.struck.length) foot.append(struck(record.struck));
  if (record.hint) foot.append(make('p', 'nbdt-hint', record.hint));
};

watch('record', draw);
watch('effect', drawEffect);
draw();
