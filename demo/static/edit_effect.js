// What an edit changes: the photograph's answer before and after, and what else.

const accuracyText = (share) => (100 * share).toFixed(1) + ' %';

const answerCard = (label, answer, other) => {
  const card = make('section', 'nbdt-edit-answer');
  const changed = other && other.class !== answer.class;
  card.classList.toggle('changed', Boolean(changed) && label === 'After');
  card.append(make('h3', '', label), make('p', 'nbdt-edit-class', answer.class));
  card.append(make('p', 'nbdt-edit-chance', percent(answer.probability) + ' for the path'));
  const steps = make('ol', 'nbdt-edit-steps');
  const known = new Set(other ? other.steps.map((step) => step.name) : []);
  for (const step of answer.steps) {
    const entry = make('li', known.has(step.name) ? '' : 'new');
    entry.append(make('span', '', step.name), make('span', 'nbdt-edit-share', percent(step.p)));
    steps.append(entry);
  }
  card.append(steps);
  if (answer.hard_class !== answer.class) {
    card.append(make('p', 'nbdt-small', 'The likeliest child at every step leads to ' + answer.hard_class + '.'));
  }
  return card;
};

const both = (found) => {
  const pair = make('div', 'nbdt-edit-pair');
  pair.append(answerCard('Before', found.before, found.after), answerCard('After', found.after, found.before));
  return pair;
};

const verdict = (found) => {
  const { before, after } = found;
  if (before.class !== after.class) return 'The answer changes from ' + before.class + ' to ' + after.class + '.';
  const path = (answer) => answer.steps.map((step) => step.name).join('\n');
  if (path(before) !== path(after)) return 'Still ' + after.class + ', by another path.';
  const chances = [percent(before.probability), percent(after.probability)];
  const change = chances[0] === chances[1] ? '.' : ', now at ' + chances[1] + ' instead of ' + chances[0] + '.';
  return 'The same answer by the same path' + change;
};

const difference = (before, after) => {
  const points = 100 * (after - before);
  if (Math.abs(points) < 0.05) return 'the same';
  return (points > 0 ? '+' : '−') + Math.abs(points).toFixed(1) + ' points';
};

const tile = (title, big, ...small) => {
  const made = make('div', 'nbdt-edit-tile');
  made.append(make('p', 'nbdt-eyebrow', title), make('p', 'nbdt-edit-big', big));
  made.append(...small.filter(Boolean).map((text) => make('p', 'nbdt-small', text)));
  return made;
};

const accuracyTile = (title, before, after, changed, images, note) => {
  const big = accuracyText(before) + ' → ' + accuracyText(after);
  const made = tile(title, big, note || difference(before, after) + '; ' + changed.toLocaleString('en') + ' of ' + images.toLocaleString('en') + ' answers change.');
  if (after < before - 0.0005) made.classList.add('worse');
  if (after > before + 0.0005) made.classList.add('better');
  return made;
};

const elsewhere = (found, record) => {
  const tiles = make('div', 'nbdt-edit-tiles');
  if (found.reference) {
    const { score_before: before, score_after: after, changed_hard: hard, changed_soft: soft, images } = found.reference;
    tiles.append(
      accuracyTile('Accuracy', before.soft, after.soft, soft, images,
        record.soft_changes ? '' : 'No edit changes it under this model’s rule.'),
      accuracyTile('Accuracy, taking the likeliest child at every step', before.hard, after.hard, hard, images));
  }
  if (found.recent === 1) {
    const hard = (found.recent_hard ? 'Another' : 'The same') + ' one by the likeliest child at every step.';
    tiles.append(tile('Your photograph', found.recent_soft ? 'Another answer' : 'The same answer', hard));
  } else if (found.recent) {
    const big = found.recent_soft + ' of ' + found.recent;
    const soft = found.recent_soft === 1 ? 'has another answer.' : 'have another answer.';
    const hard = found.recent_hard + ' by the likeliest child at every step.';
    tiles.append(tile('Your last photographs', big, soft, hard));
  }
  return tiles;
};

const measuredOn = ({ reference }) => {
  if (!reference) return '';
  const all = reference.images_all.toLocaleString('en');
  if (reference.images === reference.images_all) return 'Measured on the ' + all + ' photographs of the model’s reference set.';
  return 'Measured on ' + reference.images.toLocaleString('en') + ' of the ' + all + ' photographs of the model’s reference set.';
};

// ---- what is saved ----

const keptTrees = new Set(); // hashes of hierarchies that were saved, loaded or downloaded
const unsavedLine = make('p', 'nbdt-edit-unsaved', 'Until you save or download it, your hierarchy lasts only as long as this page is open.');

const isUnsaved = () => {
  const record = parsed(props.effect);
  return Boolean(record && record.edited) && !keptTrees.has(record.hash);
};

const keepsTree = (hash) => {
  keptTrees.add(hash);
  unsavedLine.hidden = !isUnsaved();
};

let scope = 'step'; // what the edit is compared with

const scopes = (record, redraw) => {
  const made = make('div', 'nbdt-edit-scopes');
  made.setAttribute('role', 'group');
  made.setAttribute('aria-label', 'Compare with');
  const offer = (value, label) => {
    const button = make('button', '', label);
    button.type = 'button';
    button.setAttribute('aria-pressed', String(scope === value));
    button.addEventListener('click', () => {
      scope = value;
      redraw();
      root.querySelector('.nbdt-edit-scopes [aria-pressed="true"]').focus();
    });
    return button;
  };
  made.append(offer('step', 'This edit'), offer('total', 'All since the model’s own'));
  return made;
};

const drawEffect = () => {
  const record = parsed(props.effect);
  const shown = Boolean(record && record.edited);
  effectPart.hidden = !shown;
  if (!shown) return effectPart.replaceChildren();
  const twofold = record.step && record.total;
  if (!twofold) scope = 'step';
  const found = twofold ? record[scope] : record.step || record.total;
  const head = make('div', 'nbdt-edit-head');
  head.append(make('h2', '', 'What your edit changes'));
  if (twofold) head.append(scopes(record, drawEffect));
  const made = [head, make('p', 'nbdt-words', record.words)];
  if (found.before) made.push(make('p', 'nbdt-edit-verdict', verdict(found)), both(found));
  made.push(make('h3', '', 'What else changes'), elsewhere(found, record));
  made.push(make('p', 'nbdt-small', [measuredOn(found), record.problem, record.consequences].filter(Boolean).join(' ')));
  unsavedLine.hidden = !isUnsaved();
  effectPart.replaceChildren(...made, unsavedLine);
};
