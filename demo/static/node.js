// One node of the tree, seen with this photograph.

const root = element.querySelector('.nbdt-node');

const close = () => {
  const button = make('button', 'nbdt-close', 'Close');
  button.type = 'button';
  button.addEventListener('click', () => trigger('node_close', {}));
  return button;
};

const heading = (record) => {
  const head = make('header', 'nbdt-node-head');
  const words = make('div');
  words.append(make('p', 'nbdt-eyebrow', record.eyebrow), make('h3', '', record.name));
  head.append(words, close());
  return head;
};

const facts = (record) => {
  const side = make('div', 'nbdt-node-facts');
  side.append(make('p', 'nbdt-question', record.question), bars(record), make('p', 'nbdt-words', record.sentence));
  return side;
};

// On a low screen the card opens below the visible part, and the click would seem to do nothing. On
// a phone its heading is enough: the tapped node, with its menu, should stay visible.
const bringIntoView = () => {
  const narrow = window.matchMedia('(max-width: 560px)').matches;
  (narrow ? root.firstElementChild : root).scrollIntoView({ block: 'nearest', behavior: reducedMotion() ? 'auto' : 'smooth' });
};

const draw = () => {
  const record = parsed(props.record);
  root.hidden = !record;
  if (!record) {
    delete root.dataset.node;
    return root.replaceChildren();
  }
  let body = make('p', 'nbdt-words', record.sentence);
  if (record.pictures) {
    body = make('div', 'nbdt-node-body');
    body.append(framed(record.pictures), facts(record));
  }
  root.replaceChildren(heading(record), body);
  if (root.dataset.node !== record.id) bringIntoView();
  root.dataset.node = record.id;
};

watch('record', draw);
draw();
