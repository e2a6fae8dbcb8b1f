// A decision as a sum over training photographs, and what happens without one of them.

let asked = 0;
let effect = null; // the last reply, as long as it is about what is shown

const action = (text, act) => {
  const button = make('button', '', text);
  button.type = 'button';
  button.addEventListener('click', () => { button.disabled = true; act(); });
  return button;
};

const contribution = (photo) => {
  const figure = make('figure', 'nbdt-part');
  figure.dataset.row = photo.row;
  const ask = action('What if it were struck out?', () => {
    asked += 1;
    trigger('ask_effect', { row: photo.row, seq: asked });
  });
  ask.setAttribute('aria-label', `What if ${photo.label}, ${photo.value}, were struck out?`);
  figure.append(picture(photo.picture, `${photo.label}, ${photo.value}`), make('figcaption', '', `${photo.label} ${photo.value}`), ask);
  return figure;
};

const contributions = (sum) => {
  const group = make('div', 'nbdt-sum');
  const parts = make('div', 'nbdt-parts');
  parts.append(...sum.photographs.map(contribution));
  group.append(make('p', 'nbdt-words', sum.words), parts);
  return group;
};

const struck = (photos) => {
  const list = make('p', 'nbdt-struck', 'Struck out for you: ');
  photos.forEach((photo) => list.append(make('span', '', photo.name + ' '), action('Take back', () => trigger('take_back', { reference: photo.row }))));
  return list;
};

// The reply is shown below the photograph that was asked about, in every step that shows it.
const drawEffect = () => {
  const reply = effect;
  if (!reply) return;
  root.querySelectorAll('.nbdt-effect').forEach((old) => old.remove());
  root.querySelectorAll('.nbdt-part').forEach((part) => {
    part.querySelector('button').disabled = false;
    if (part.dataset.row !== reply.row) return;
    const box = make('div', 'nbdt-effect');
    box.setAttribute('role', 'status');
    (reply.lines || [reply.error]).forEach((line) => box.append(make('p', 'nbdt-small', line)));
    if (reply.may_strike) box.append(action('Strike it out', () => trigger('strike', { reference: reply.row })));
    part.append(box);
  });
};
