// This visitor's corrections, and the models trained with them. All text is set as text.

const root = element.querySelector('.nbdt-history');
const EVERY = 60000; // ms between checks for a new model, while the page is visible
let seq = 0;

const button = (text, about, act) => {
  const made = make('button', 'nbdt-history-button', text);
  made.type = 'button';
  if (about) made.setAttribute('aria-label', about);
  made.addEventListener('click', () => { made.disabled = true; act(); });
  return made;
};

const when = (text) => {
  const time = new Date(text);
  return Number.isNaN(time.getTime()) ? '' : time.toLocaleString([], { dateStyle: 'medium', timeStyle: 'short' });
};

const correction = (one) => {
  const item = make('li', 'nbdt-history-item'), words = make('div', 'nbdt-history-words');
  const facts = ['No. ' + one.id, when(one.time), one.kept ? 'photograph kept' : 'no photograph kept'];
  if (one.learned) facts.push('the model has learnt from it');
  if (one.acts) facts.push('acts for you');
  if (one.aside) facts.push('kept aside: ' + one.aside);
  words.append(make('p', 'nbdt-history-text', one.text));
  if (one.note) words.append(make('p', 'nbdt-history-note', one.note));
  words.append(make('p', 'nbdt-history-facts', facts.filter(Boolean).join(' · ')));
  item.append(words, button(one.acts ? 'Undo' : 'Delete', (one.acts ? 'Undo correction ' : 'Delete correction ') + one.id,
    () => trigger('withdraw', { id: one.id, seq: ++seq })));
  return item;
};

const mark = (reference) => {
  const item = make('li', 'nbdt-history-item'), words = make('div', 'nbdt-history-words');
  words.append(make('p', 'nbdt-history-text', reference), make('p', 'nbdt-history-facts', 'bad evidence, for you'));
  item.append(words, button('Let it count again', 'Let ' + reference + ' count again',
    () => trigger('unmark', { reference, seq: ++seq })));
  return item;
};

const figures = (accuracy) => {
  const [before, after] = accuracy;
  if (typeof before !== 'number' || typeof after !== 'number') return '';
  const shown = [before, after].map((value) => (100 * value).toFixed(1) + ' %');
  return ' On photographs that it was not trained on it is right ' + shown[1] + ' of the time; before, ' + shown[0] + '.';
};

const version = (one, choose) => {
  const card = make('li', 'nbdt-history-version');
  const many = one.learned === 1 ? '1 correction' : one.learned + ' corrections';
  card.append(make('p', 'nbdt-history-text',
    'Version ' + one.id + ' learned from ' + many + '.' + figures(one.accuracy)));
  card.append(one.chosen ? make('p', 'nbdt-history-chosen', 'You are looking at it.')
    : button('Try version ' + one.id, '', () => choose(one.id)));
  return card;
};

const answer = (title, one) => {
  const side = make('div', 'nbdt-history-side');
  side.append(make('p', 'nbdt-history-facts', title),
    make('p', 'nbdt-history-text', one.path.join(' → ') + ' (' + percent(one.probability) + ')'));
  one.wanted.forEach((asked) => {
    const place = asked.at ? ' at ' + asked.at : '';
    side.append(make('p', 'nbdt-history-note', asked.name + place + ': ' + percent(asked.probability)));
  });
  return side;
};

const comparison = (rows) => {
  const list = make('ul', 'nbdt-history-compared');
  rows.forEach((row) => {
    const item = make('li', 'nbdt-history-pair'), words = make('div', 'nbdt-history-words');
    words.append(make('p', 'nbdt-history-note', row.said.join('; ')), answer('Before', row.before),
      answer('After', row.after));
    item.append(picture(row.photo, 'a photograph that you corrected'), words);
    list.append(item);
  });
  return list;
};

const models = (record) => {
  const parts = [];
  const choose = (id) => { announce('Loading …'); trigger('choose', { id, seq: ++seq }); };
  if (record.versions.length) {
    const list = make('ul', 'nbdt-history-list');
    list.append(...record.versions.map((one) => version(one, choose)));
    parts.push(make('h3', 'nbdt-history-head', 'The model has learnt'), list);
    if (!record.first) parts.push(button('Back to the first version', '', () => choose(0)));
  }
  const rows = parsed(props.compared);
  if (rows && rows.length) {
    parts.push(make('h3', 'nbdt-history-head', 'Your photographs, before and after'), comparison(rows));
  }
  if (record.may_apply) {
    const many = record.waiting === 1 ? '1 correction waits' : record.waiting + ' corrections wait';
    parts.push(make('p', 'nbdt-history-facts', many + ' to be learnt.'));
    if (record.waiting) {
      parts.push(button('Teach the model now', '', () => { announce('Starting …'); trigger('train', { seq: ++seq }); }));
    }
  }
  return parts;
};

const live = make('p', 'nbdt-history-status');
live.setAttribute('role', 'status');
const body = make('div', 'nbdt-history-body');
const announce = (text) => { live.textContent = text; };

const draw = () => {
  const record = parsed(props.record);
  const anything = record && (record.corrections.length || record.marks.length ||
    record.versions.length || record.may_apply);
  root.hidden = !anything && !live.textContent;
  if (!record) return;
  const parts = models(record);
  if (record.corrections.length || record.marks.length) {
    const list = make('ul', 'nbdt-history-list');
    list.append(...record.corrections.map(correction), ...record.marks.map(mark));
    parts.push(make('h3', 'nbdt-history-head', 'Your corrections'), list);
    if (record.more) parts.push(make('p', 'nbdt-history-facts', 'and ' + record.more + ' earlier ones'));
  }
  body.replaceChildren(...parts);
};

root.hidden = true;
root.replaceChildren(live, body);
watch('record', draw);
watch('compared', draw);
watch('progress', () => { announce(props.progress || ''); root.hidden = root.hidden && !props.progress; });
draw();
setInterval(() => { if (!document.hidden) trigger('refresh', { seq: ++seq }); }, EVERY);
