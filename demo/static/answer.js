// The answer in large type, how sure each part of it is, and the path as a list.

const root = element.querySelector('.nbdt-answer');

const crumb = (step, kind, more) => {
  const item = make('li', kind);
  item.append(make('span', 'nbdt-crumb', step.name));
  if (step.probability !== undefined) item.append(make('span', 'nbdt-crumb-share', percent(step.probability)));
  if (kind === 'nbdt-last' && more) item.append(make('span', 'nbdt-crumb-share', '· the answer stops here'));
  if (step.remark) item.append(make('span', 'nbdt-crumb-share', `(${step.remark})`));
  return item;
};

const trail = (steps, stop) => {
  const kind = (i) => (i === stop ? 'nbdt-last' : i > stop ? 'nbdt-beyond' : '');
  const list = make('ol', 'nbdt-trail');
  list.setAttribute('aria-label', 'The path, from general to particular');
  list.append(...steps.map((step, i) => crumb(step, kind(i), i < steps.length - 1)));
  return list;
};

const known = (record) => {
  const box = make('details', 'nbdt-known');
  box.append(make('summary', '', record.knows), make('p', '', record.classes));
  return box;
};

const empty = (record) => [
  make('p', 'nbdt-eyebrow', 'Nothing to judge yet'),
  make('p', 'nbdt-headline nbdt-waiting', 'Show it a photograph'),
  make('p', 'nbdt-words', 'Upload one, paste it, or choose one of the examples. The answer comes as a path through the tree below: each fork is one question, and you see how it was answered and why.'),
  known(record),
];

const answered = (record) => {
  const parts = [
    make('p', 'nbdt-eyebrow', 'Its answer'),
    make('p', 'nbdt-headline', record.title),
    make('p', 'nbdt-sure', record.text + '.'),
    trail(record.trail, record.stop),
  ];
  if (record.promise) parts.push(make('p', 'nbdt-promise', record.promise));
  if (record.left_out) parts.push(make('p', 'nbdt-left-out', record.left_out));
  parts.push(...record.cautions.map((text) => make('p', 'nbdt-caution', text)));
  parts.push(known(record));
  return parts;
};

const draw = () => {
  const record = parsed(props.record);
  if (!record) return;
  root.dataset.level = record.level;
  root.replaceChildren(...(record.title ? answered(record) : empty(record)));
};

watch('record', draw);
draw();
