// The correction form. All text is set as text; see page.js.

const root = element.querySelector('.nbdt-correct');
const KINDS = [
  ['step', 'A step went the wrong way', 'It should have turned off here.'],
  ['region', 'It looked at the wrong thing', 'A part of the photograph should not count.'],
  ['label', 'The answer is something else', 'You know what this is.'],
  ['class', 'It is none of these', 'The model does not know it yet.'],
  ['evidence', 'A training picture is bad', 'It should not count as evidence.'],
];
const EMPTY = { left: 25, top: 25, right: 75, bottom: 75 };
const SIDES = [['left', 'Left'], ['top', 'Top'], ['right', 'Right'], ['bottom', 'Bottom']];
let key = '', kind = '', step = 0, child = '', reference = '', box = { ...EMPTY };
let seq = 0, waiting = 0, late = 0;
let marked = false; // whether the visitor moved the region: its first position means nothing
let fields = null, status = null, send = null, note = null, keep = null, label = null;
// Of a new class: its name, its photographs by key, and the group that it joins once one is proposed.
let name = '', chosen = new Set(), listed = null, joins = '';

const labelled = (tag, text, control, hint) => {
  const row = make(tag, 'nbdt-correct-row');
  const name = make('label', 'nbdt-correct-name', text);
  control.id = control.id || 'nbdt-correct-' + text.toLowerCase().replace(/[^a-z]+/g, '-');
  name.htmlFor = control.id;
  row.append(name, control);
  if (hint) row.append(make('p', 'nbdt-correct-hint', hint));
  return row;
};

const choice = (group, value, title, below, chosen, picked, type = 'radio') => {
  const card = make('label', 'nbdt-correct-card');
  const radio = make('input');
  radio.type = type;
  radio.name = group;
  radio.value = value;
  radio.checked = chosen;
  radio.addEventListener('change', () => picked(value));
  const words = make('span', 'nbdt-correct-words');
  words.append(make('span', 'nbdt-correct-title', title));
  if (below) words.append(make('span', 'nbdt-correct-hint', below));
  card.append(radio, words);
  return card;
};

const group = (title, ...cards) => {
  const set = make('fieldset', 'nbdt-correct-set');
  const grid = make('div', 'nbdt-correct-cards');
  grid.append(...cards);
  set.append(make('legend', 'nbdt-correct-name', title), grid);
  return set;
};

const stepChoice = (record, redraw) => {
  const select = make('select', 'nbdt-correct-control');
  record.steps.forEach((one, i) => {
    const taken = one.children.find((c) => c.id === one.chosen);
    const option = make('option', '', (i + 1) + '. ' + one.name + ' → ' + taken.name + ' (' +
      percent(Math.exp(taken.log_prob)) + ')');
    option.value = String(i);
    select.append(option);
  });
  select.value = String(step);
  select.addEventListener('change', () => { step = Number(select.value); child = ''; redraw(); });
  return select;
};

const stepFields = (record) => {
  const at = record.steps[step];
  const others = at.children.filter((c) => c.id !== at.chosen);
  if (others.length === 1) child = others[0].id;
  const select = stepChoice(record, () => drawFields(record));
  const parts = [labelled('div', 'Which step?', select)];
  if (others.length <= 8) {
    parts.push(group('It should have gone to', ...others.map((c) => choice(
      'nbdt-correct-child', c.id, c.name, 'now ' + percent(Math.exp(c.log_prob)), c.id === child,
      (value) => { child = value; }))));
  } else {
    const to = make('select', 'nbdt-correct-control');
    to.append(make('option', '', 'Choose …'));
    others.sort((a, b) => b.log_prob - a.log_prob).forEach((c) => {
      const option = make('option', '', c.name + ' (' + percent(Math.exp(c.log_prob)) + ')');
      option.value = c.id;
      to.append(option);
    });
    to.value = child;
    to.addEventListener('change', () => { child = to.value; });
    parts.push(labelled('div', 'It should have gone to', to));
  }
  return parts;
};

// ---- the region: by pointer on the photograph, by arrow keys, or as four numbers ----

const clamp = (value) => Math.max(0, Math.min(100, Math.round(value)));
const tidy = () => {
  box.left = Math.min(box.left, 99); box.top = Math.min(box.top, 99);
  box.right = Math.max(box.right, box.left + 1); box.bottom = Math.max(box.bottom, box.top + 1);
};

const regionFields = (record) => {
  const board = make('div', 'nbdt-correct-board'), frame = make('div', 'nbdt-correct-box');
  const shown = picture(record.photo, 'The photograph as the network sees it');
  const numbers = {};
  const mark = () => { marked = true; tidy(); draw(); };
  const draw = () => {
    frame.style.left = box.left + '%';
    frame.style.top = box.top + '%';
    frame.style.width = (box.right - box.left) + '%';
    frame.style.height = (box.bottom - box.top) + '%';
    SIDES.forEach(([name]) => { if (numbers[name]) numbers[name].value = String(box[name]); });
  };
  board.tabIndex = 0;
  board.setAttribute('role', 'group');
  board.setAttribute('aria-label',
    'Region: drag over the photograph, or move it with the arrow keys and resize it with Shift');
  board.append(shown, frame);
  let from = null;
  const position = (event) => {
    const area = board.getBoundingClientRect();
    return [100 * (event.clientX - area.left) / area.width,
            100 * (event.clientY - area.top) / area.height].map(clamp);
  };
  board.addEventListener('pointerdown', (event) => {
    from = position(event);
    board.setPointerCapture(event.pointerId);
    event.preventDefault();
    board.focus({ preventScroll: true });
  });
  board.addEventListener('pointermove', (event) => {
    if (!from) return;
    const [x, y] = position(event);
    box = { left: Math.min(from[0], x), top: Math.min(from[1], y),
            right: Math.max(from[0], x), bottom: Math.max(from[1], y) };
    mark();
  });
  const stop = () => { from = null; };
  board.addEventListener('pointerup', stop);
  board.addEventListener('pointercancel', stop);
  board.addEventListener('keydown', (event) => {
    const move = { ArrowLeft: [-2, 0], ArrowRight: [2, 0], ArrowUp: [0, -2], ArrowDown: [0, 2] };
    if (!move[event.key]) return;
    event.preventDefault();
    const [x, y] = move[event.key];
    if (event.shiftKey) {
      box.right = clamp(box.right + x);
      box.bottom = clamp(box.bottom + y);
    } else if (box.left + x >= 0 && box.right + x <= 100 && box.top + y >= 0 && box.bottom + y <= 100) {
      box = { left: box.left + x, top: box.top + y, right: box.right + x, bottom: box.bottom + y };
    }
    mark();
  });
  const row = make('div', 'nbdt-correct-numbers');
  SIDES.forEach(([name, title]) => {
    const input = make('input', 'nbdt-correct-control');
    input.type = 'number';
    input.min = '0';
    input.max = '100';
    input.addEventListener('change', () => {
      box[name] = clamp(Number(input.value) || 0);
      mark();
    });
    numbers[name] = input;
    row.append(labelled('div', title + ' %', input));
  });
  draw();
  const select = stepChoice(record, () => drawFields(record));
  const drawing = make('div', 'nbdt-correct-row');
  drawing.append(make('p', 'nbdt-correct-name', 'What should not count?'), board,
    make('p', 'nbdt-correct-hint', 'Drag over it, or use the arrow keys (Shift resizes) or the numbers.'),
    row);
  return [labelled('div', 'At which step?', select), drawing];
};

// ---- the label, the evidence ----

const labelFields = (record) => {
  label = make('input', 'nbdt-correct-control');
  label.setAttribute('list', 'nbdt-correct-classes');
  label.autocomplete = 'off';
  label.placeholder = 'Type to search';
  const list = make('datalist');
  list.id = 'nbdt-correct-classes';
  (parsed(props.classes) || []).forEach((name) => {
    if (name === record.answer) return;
    const option = make('option');
    option.value = name;
    list.append(option);
  });
  return [labelled('div', 'This is', label, 'A class or, if you are not sure which, a group such as those in the path.'), list];
};

const evidenceFields = () => {
  const images = parsed(props.evidence);
  if (!images) {
    trigger('list_evidence', { seq: ++seq });
    return [make('p', 'nbdt-correct-hint', 'Fetching the training pictures …')];
  }
  if (!images.length) return [make('p', 'nbdt-correct-hint', 'There are none for this answer.')];
  return [group('Which one should not count?', ...images.map((one) => {
    const card = choice('nbdt-correct-evidence', one.reference, one.label, 'shown for ' + one.side,
      one.reference === reference, (value) => { reference = value; });
    card.classList.add('nbdt-correct-picture');
    card.querySelector('.nbdt-correct-words').prepend(picture(one.photo, ''));
    return card;
  }))];
};

// ---- a new class ----

const classFields = () => {
  const photos = parsed(props.photos);
  if (!photos) {
    trigger('list_photographs', { seq: ++seq });
    return [make('p', 'nbdt-correct-hint', 'Fetching your photographs …')];
  }
  label = make('input', 'nbdt-correct-control');
  label.autocomplete = 'off';
  label.value = name;
  const moved = () => { joins = ''; drawFields(parsed(props.record)); };
  label.addEventListener('input', () => { name = label.value.trim(); if (joins) moved(); });
  const shown = group('Which photographs show it? Three or more are best.', ...photos.map((one, i) => {
    const card = choice('nbdt-correct-photo', one.key, 'Photograph ' + (i + 1), '', chosen.has(one.key), () => {
      if (!chosen.delete(one.key)) chosen.add(one.key);
      if (joins) moved();
    }, 'checkbox');
    card.classList.add('nbdt-correct-picture');
    card.querySelector('.nbdt-correct-words').prepend(picture(one.photo, ''));
    return card;
  }));
  const more = make('button', 'nbdt-correct-more', 'Add photographs …');
  more.type = 'button';
  more.addEventListener('click', () => {
    // What comes next is chosen: the person selects photographs of the class.
    listed = new Set(photos.map((one) => one.key));
    document.querySelector('#nbdt-more').click();
  });
  return [labelled('div', 'What is it?', label), shown, more, ...(joins ? placeFields() : [])];
};

const placeFields = () => {
  const place = parsed(props.place);
  const select = make('select', 'nbdt-correct-control');
  place.groups.forEach((one) => {
    const option = make('option', '', one.name + ' (' + one.beside.join(', ') + ')');
    option.value = one.id;
    select.append(option);
  });
  select.value = joins;
  select.addEventListener('change', () => { joins = select.value; });
  return [labelled('div', 'It joins the group', select, 'Proposed: ' + place.reason + '.')];
};

const drawFields = (record) => {
  const made = { step: stepFields, region: regionFields, label: labelFields, evidence: evidenceFields, class: classFields };
  const focused = fields.contains(document.activeElement) && document.activeElement.id;
  fields.replaceChildren(...(kind ? made[kind](record) : []));
  if (focused && document.getElementById(focused)) document.getElementById(focused).focus();
  fields.parentElement.querySelector('.nbdt-correct-rest').hidden = !kind;
  keep.closest('.nbdt-correct-consent').hidden = kind === 'evidence' || kind === 'class';
  send.textContent = kind !== 'class' ? 'Save the correction' : joins ? 'Add the class' : 'Where does it belong?';
};

// ---- sending ----

const payload = (record) => {
  const at = record.steps[step].id;
  const region = [box.left, box.top, box.right, box.bottom].map((value) => value / 100);
  const what = {
    step: { node: at, child },
    region: { node: at, region },
    label: { label: label ? label.value.trim() : '' },
    evidence: { reference },
    class: { label: name, node: joins, photos: [...chosen] },
  }[kind];
  return { kind, ...what, note: note.value, keep: keep.checked };
};

const missingField = (sent) => {
  if (kind === 'step' && !sent.child) return 'Choose where the step should have gone.';
  if (kind === 'evidence' && !sent.reference) return 'Choose the picture that should not count.';
  if (kind === 'region' && !marked) return 'First mark what should not count: drag over it on the photograph.';
  if ((kind === 'label' || kind === 'class') && !sent.label) return 'Enter what it is.';
  if (kind === 'class' && sent.photos.length < 2) return 'Choose two photographs of it or more.';
  return '';
};

const announce = (text, tone) => {
  status.textContent = text;
  status.dataset.tone = tone;
};

const submit = (record) => {
  const sent = payload(record), missing = missingField(sent);
  if (missing) { announce(missing, 'problem'); return; }
  waiting = ++seq;
  send.disabled = true;
  const asks = kind === 'class' && !joins;
  announce(asks ? 'Looking for its place …' : 'Saving …', '');
  trigger(asks ? 'propose' : kind === 'evidence' ? 'mark' : 'correct', { ...sent, seq: waiting });
  clearTimeout(late);
  late = setTimeout(() => {
    send.disabled = false;
    announce('No answer from the server: this may not be saved. Look at the list below, then try again.',
      'problem');
  }, 20000);
};

const answered = () => {
  const reply = parsed(props.reply);
  if (!reply || !status) return;
  if (reply.seq !== waiting && reply.seq !== 0) return;
  clearTimeout(late);
  send.disabled = false;
  announce(reply.text, reply.done ? 'done' : 'problem');
  // Consent is for one correction: the next one asks again.
  if (reply.done && note) { note.value = ''; reference = ''; keep.checked = false; }
};

// ---- the form ----

const draw = () => {
  const record = parsed(props.record);
  root.hidden = !record;
  if (!record) { key = ''; root.replaceChildren(); return; }
  if (record.key === key) return;
  // After a correction that acts the same photograph is drawn again: what was said about it stays.
  const said = status && record.key.split(' ')[0] === key.split(' ')[0] ? [status.textContent, status.dataset.tone] : null;
  key = record.key;
  kind = ''; step = 0; child = ''; reference = ''; box = { ...EMPTY }; marked = false;
  name = ''; joins = ''; chosen = new Set([record.key.split(' ')[0]]);
  const form = make('form', 'nbdt-correct-form');
  const kinds = KINDS.filter(([one]) => one === 'evidence' ? record.has_evidence : one !== 'class' || record.acts);
  fields = make('div', 'nbdt-correct-fields');
  note = make('textarea', 'nbdt-correct-control');
  note.rows = 2;
  note.maxLength = 2000;
  keep = make('input');
  keep.type = 'checkbox';
  const consent = make('label', 'nbdt-correct-consent'), words = make('span', 'nbdt-correct-words');
  words.append(
    make('span', 'nbdt-correct-title', 'Keep a copy of this photograph, so that the model can learn from it'),
    make('span', 'nbdt-correct-hint', 'Without place, time and camera data (EXIF); you can delete it ' +
      'below. Unticked, only a fingerprint is kept' + (record.acts ? ', with the numbers that the network made of it.' :
      ', and the model can learn only where the photograph is found.')));
  consent.append(keep, words);
  send = make('button', 'nbdt-correct-send', 'Save the correction');
  send.type = 'submit';
  status = make('p', 'nbdt-correct-status');
  status.setAttribute('role', 'status');
  if (said) announce(...said);
  const rest = make('div', 'nbdt-correct-rest');
  rest.append(labelled('div', 'Anything else? (optional)', note), consent, send);
  form.append(group('What is wrong?', ...kinds.map(([name, title, below]) => choice(
    'nbdt-correct-kind', name, title, below, false, (value) => {
      kind = value;
      announce('', '');
      drawFields(record);
    }))), fields, rest, status);
  form.addEventListener('submit', (event) => { event.preventDefault(); submit(record); });
  root.replaceChildren(make('h2', '', 'Is something wrong?'),
    make('p', 'nbdt-correct-lead', record.acts ? 'Show where. Your correction is kept, and acts for you at once.' :
      'Show where. Your correction is kept, and the model can learn from it.'), form);
  drawFields(record);
};

watch('record', draw);
// The server empties it when the evidence changed: drawing the fields requests it again.
watch('evidence', () => { if (kind === 'evidence' && props.record) drawFields(parsed(props.record)); });
watch('photos', () => {
  const photos = parsed(props.photos);
  if (kind !== 'class' || !photos) return;
  if (listed) photos.forEach((one) => { if (!listed.has(one.key)) chosen.add(one.key); });
  listed = null;
  drawFields(parsed(props.record));
});
watch('place', () => {
  const place = parsed(props.place);
  if (kind !== 'class' || !place || place.seq !== waiting) return;
  clearTimeout(late);
  send.disabled = false;
  joins = place.parent;
  announce('', '');
  drawFields(parsed(props.record));
});
watch('reply', answered);
draw();
