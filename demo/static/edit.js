// The panel below the tree: what the edits change, and where they can be kept.

const root = element.querySelector('.nbdt-edit');
const effectPart = make('div', 'nbdt-edit-effect');
const saidPart = make('p', 'nbdt-edit-said');
saidPart.setAttribute('role', 'status');
const backButton = button('Bring my earlier hierarchy back', () => trigger('edit_back', {}));
backButton.hidden = true;

const sayEdit = (text, wrong) => {
  saidPart.textContent = text;
  saidPart.classList.toggle('wrong', Boolean(wrong));
};

const drawSaid = () => {
  const record = parsed(props.said);
  if (!record) return;
  sayEdit(record.text, !record.ok);
  backButton.hidden = !(record.back || (!record.ok && !backButton.hidden));
};

root.append(effectPart, versionsPart(), saidPart, backButton);
watch('effect', drawEffect);
watch('saved', drawSaved);
watch('difference', drawDifference);
watch('file', saveFile);
watch('said', drawSaid);
drawEffect();
drawSaved();
