// Suspicious photographs: what a person decides stays in this tab until it is written.

const root = element.querySelector('.nbdt-review');
let seq = 0, asked = 0, record = null, verdicts = {};

const place = () => 'nbdt-review ' + record.key;
const load = () => { try { return JSON.parse(sessionStorage.getItem(place())) || {}; } catch { return {}; } };
const store = () => { try { sessionStorage.setItem(place(), JSON.stringify(verdicts)); } catch { /* it is kept on the page */ } };
const decided = () => record.rows.filter((row) => verdicts[row.id] && verdicts[row.id] !== 'unsure')
  .map((row) => ({ id: row.id, label: row.label, verdict: verdicts[row.id] }));

const list = make('ol', 'nbdt-review-list');
const lead = make('p', 'nbdt-lead');
const foot = make('footer', 'nbdt-review-foot');
const effect = make('p', 'nbdt-review-effect');
const status = make('p', 'nbdt-review-status');
[effect, status].forEach((line) => line.setAttribute('role', 'status'));
const write = make('button', 'nbdt-correct-send', 'Write to the memory');
write.type = 'button';
write.addEventListener('click', () => {
  write.disabled = true;
  trigger('write', { verdicts: decided(), seq: ++seq });
});
foot.append(effect, write, status);
const names = make('datalist');
names.id = 'nbdt-review-names';
const corrected = make('p', 'nbdt-small');
root.append(corrected, lead, list, names, foot);

const count = () => {
  const done = decided().length;
  write.textContent = done ? `Write ${done} decision${done === 1 ? '' : 's'} to the memory` : 'Write to the memory';
  write.disabled = !done;
};

// One question at a time: the next one is about all decisions so far.
const ask = () => {
  asked = seq;
  trigger('effect', { verdicts: decided(), seq });
};

const decide = (row, verdict) => {
  if (verdicts[row.id] === verdict) delete verdicts[row.id];
  else verdicts[row.id] = verdict;
  store();
  count();
  status.textContent = '';
  effect.textContent = decided().length ? 'Fitting …' : '';
  seq += 1;
  if (!asked) ask();
};

const choices = (row) => {
  const group = make('div', 'nbdt-review-choices');
  group.setAttribute('role', 'group');
  group.setAttribute('aria-label', 'Decision on ' + row.reference);
  const target = make('input', 'nbdt-review-target');
  const chosen = verdicts[row.id] || '';
  target.value = chosen.startsWith('relabel ') ? chosen.slice(8) : row.says;
  target.setAttribute('list', names.id);
  target.setAttribute('aria-label', 'What it shows');
  const options = [
    ['Keep', () => 'keep'],
    ['Strike out', () => 'strike'],
    ['It shows', () => 'relabel ' + target.value.trim()],
    ['Cannot tell', () => 'unsure'],
  ];
  const buttons = options.map(([text, verdict]) => {
    const button = make('button', 'nbdt-history-button', text);
    button.type = 'button';
    button.addEventListener('click', () => { decide(row, verdict()); mark(); });
    return button;
  });
  const mark = () => {
    const now = (verdicts[row.id] || '').split(' ')[0];
    const at = ['keep', 'strike', 'relabel', 'unsure'].indexOf(now);
    buttons.forEach((button, i) => button.setAttribute('aria-pressed', String(i === at)));
  };
  target.addEventListener('change', () => {
    if ((verdicts[row.id] || '').startsWith('relabel')) { decide(row, 'relabel ' + target.value.trim()); mark(); }
  });
  mark();
  group.append(buttons[0], buttons[1], buttons[2], target, buttons[3]);
  return group;
};

const card = (row) => {
  const item = make('li', 'nbdt-review-row'), words = make('div', 'nbdt-review-words'), why = make('ul', 'nbdt-review-why');
  why.append(...row.why.map((text) => make('li', '', text)));
  words.append(make('h3', '', `Labelled ${row.label} (probability ${percent(row.probability)})`), why,
    make('p', 'nbdt-small', row.reference), choices(row));
  item.append(row.picture ? picture(row.picture, 'Photograph ' + row.reference)
    : make('p', 'nbdt-review-none', 'There is no picture of it.'), words);
  return item;
};

const draw = () => {
  record = parsed(props.record);
  root.hidden = !record;
  if (!record) return;
  // A photograph that you cannot tell is not written; it stays marked while this tab is open.
  const unsure = Object.entries(verdicts).filter(([, verdict]) => verdict === 'unsure');
  asked = 0;
  verdicts = { ...Object.fromEntries(unsure), ...load() };
  const more = record.left ? ` ${record.left} more come after these.` : '';
  lead.textContent = record.rows.length ? `${record.rows.length} photographs to look at.${more}` : 'No photograph is suspicious.';
  names.replaceChildren(...record.names.map((name) => Object.assign(make('option'), { value: name })));
  list.replaceChildren(...record.rows.map(card));
  foot.hidden = !record.rows.length && !status.textContent;
  count();
};

watch('record', draw);
watch('corrections', () => { corrected.textContent = props.corrections || ''; });
watch('effect', () => {
  const reply = parsed(props.effect);
  if (!reply) return;
  asked = 0;
  if (reply.seq === seq) effect.textContent = reply.text;
  else ask();
});
watch('reply', () => {
  const reply = parsed(props.reply);
  if (!reply || reply.seq !== seq) return;
  status.textContent = reply.text;
  status.dataset.tone = reply.done ? 'done' : 'problem';
  if (reply.done) effect.textContent = '';
  foot.hidden = false;
  count();
});
draw();
