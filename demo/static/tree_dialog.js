// One question: which node, and what name. A search field with the choices below it.

const dialog = view.querySelector('.nbdt-tree-dialog');
const MOST_CHOICES = 60; // shown at once
let asked = 0; // number of the last request for names
let offerNames = () => {};

const textField = (label, hint) => {
  const wrap = make('label', 'nbdt-tree-field', label);
  const input = make('input');
  input.type = 'text';
  input.maxLength = 500;
  input.autocomplete = 'off';
  input.spellcheck = false;
  input.placeholder = hint || '';
  wrap.append(input);
  return { wrap, input };
};

const chooser = (choices, onPick) => {
  const { wrap, input } = textField('Search', 'Type a part of its name');
  const options = make('ul', 'nbdt-tree-choices');
  options.id = 'nbdt-tree-choices';
  options.setAttribute('role', 'listbox');
  options.setAttribute('aria-label', 'Choices');
  for (const [key, value] of [['role', 'combobox'], ['aria-expanded', 'true'], ['aria-controls', options.id], ['aria-autocomplete', 'list']]) input.setAttribute(key, value);
  let shown = [], at = 0, picked = -1;

  const mark = () => {
    [...options.children].forEach((option, place) => {
      option.classList.toggle('active', place === at);
      option.setAttribute('aria-selected', String(shown[place] === picked));
    });
    const active = options.children[at];
    if (active) input.setAttribute('aria-activedescendant', active.id);
    else input.removeAttribute('aria-activedescendant');
  };
  const pick = (place) => {
    if (place < 0 || place >= shown.length) return;
    at = place;
    picked = shown[place];
    mark();
    onPick(picked);
  };
  const option = (i, place) => {
    const made = make('li');
    made.id = 'nbdt-tree-choice-' + place;
    made.setAttribute('role', 'option');
    made.append(make('b', '', tree.names[i]), make('small', '', trail(i)));
    made.addEventListener('click', () => pick(place));
    return made;
  };
  const fill = () => {
    const part = plain(input.value.trim());
    shown = matching(part, choices).slice(0, MOST_CHOICES);
    at = 0;
    options.replaceChildren(...shown.map(option));
    if (!shown.length) options.append(make('li', 'none', 'No node of that name can be chosen.'));
    mark();
  };
  input.addEventListener('input', fill);
  input.addEventListener('keydown', (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && shown.length) {
      event.preventDefault();
      at = (at + step + shown.length) % shown.length;
      mark();
      options.children[at].scrollIntoView({ block: 'nearest' });
    } else if (event.key === 'Enter' && picked < 0) {
      event.preventDefault();
      pick(at);
    }
  });
  fill();
  return { wrap, input, options, picked: () => picked };
};

// The name of a new group: typed, or one of those that the server suggests.
const namer = (value) => {
  const { wrap, input } = textField('Name', 'What do they have in common?');
  const offers = make('div', 'nbdt-tree-offers');
  let touched = false;
  input.value = value;
  input.addEventListener('input', () => {
    touched = true;
  });
  const offer = (name) => {
    const button = make('button', '', name);
    button.type = 'button';
    button.addEventListener('click', () => {
      input.value = name;
      touched = true;
      input.focus();
    });
    return button;
  };
  const suggest = (names) => {
    offers.replaceChildren(...names.map(offer));
    if (touched || !names.length) return;
    input.value = names[0];
    if (document.activeElement === input) input.select();
  };
  const ask = (nodes) => {
    if (!touched) input.value = nodes.map((i) => tree.names[i].split(',')[0]).join(' and ');
    asked += 1;
    const mine = asked;
    offerNames = (reply) => {
      if (reply.seq === mine) suggest(reply.names);
    };
    trigger('name_wanted', { nodes: nodes.map((i) => tree.ids[i]), seq: mine });
  };
  return { wrap, input, offers, ask };
};

const askFor = ({ title, choices, name, done, named }) => {
  const form = make('form');
  form.method = 'dialog';
  const heading = make('h3', '', title);
  heading.id = 'nbdt-tree-title';
  dialog.setAttribute('aria-labelledby', heading.id);
  const accept = make('button', 'nbdt-tree-accept', 'OK');
  const cancel = make('button', '', 'Cancel');
  cancel.type = 'button';
  cancel.addEventListener('click', () => dialog.close());
  const naming = name === undefined ? null : namer(name);
  const choosing = choices && chooser(choices, (i) => {
    accept.disabled = false;
    if (naming) naming.ask(named(i));
    (naming ? naming.input : accept).focus();
    if (naming) naming.input.select();
  });
  accept.disabled = Boolean(choosing);
  form.append(heading);
  if (choosing) form.append(choosing.wrap, choosing.options);
  if (naming) form.append(naming.wrap, naming.offers);
  const buttons = make('div', 'nbdt-tree-dialog-buttons');
  buttons.append(cancel, accept);
  form.append(buttons);
  form.addEventListener('submit', () => done(choosing ? choosing.picked() : -1, naming ? naming.input.value.trim() : null));
  dialog.replaceChildren(form);
  dialog.showModal();
  const first = choosing ? choosing.input : naming.input;
  if (naming && !choosing && named) naming.ask(named(-1));
  first.focus();
  if (!choosing) first.select();
};

dialog.addEventListener('close', () => {
  offerNames = () => {};
  focusOn(items.has(focused) ? focused : 0);
});

const within = (i) => tree.names.map((_, at) => at).filter((at) => at !== i);
const quoted = (i) => '“' + tree.names[i] + '”';

const TITLES = {
  move: (i) => 'Move ' + quoted(i) + ' into …',
  group: (i, other) => 'Group ' + quoted(i) + (other === undefined ? ' with …' : ' and ' + quoted(other) + ' as …'),
  merge: (i) => 'Merge ' + quoted(i) + ' with …',
  rename: (i) => 'Rename ' + quoted(i),
};

// Ask for what the kind of edit takes, then send it. `other` is given where it is known already.
const askEdit = (kind, i, other) => {
  const { to, least, name: naming } = kinds[kind];
  const takesOther = to || least > 1;
  const named = naming === 'required';
  if (!takesOther && !named) return send(kind, [tree.ids[i]]);
  const otherOf = (picked) => (other === undefined ? picked : other);
  const done = (picked, name) => {
    const second = otherOf(picked);
    if ((takesOther && second < 0) || (named && !name) || (!takesOther && name === tree.names[i])) return;
    const nodes = takesOther && !to ? [tree.ids[i], tree.ids[second]] : [tree.ids[i]];
    send(kind, nodes, to ? tree.ids[second] : null, name);
  };
  return askFor({
    title: TITLES[kind](i, other),
    choices: takesOther && other === undefined ? within(i).filter((node) => possible[kind](i, node)) : undefined,
    name: named ? (takesOther ? '' : tree.names[i]) : undefined,
    named: takesOther ? (picked) => [i, otherOf(picked)] : undefined,
    done,
  });
};
