// The panel below the tree: what the edits change, and where they can be kept.

const root = element.querySelector('.nbdt-edit');
const effectPart = make('div', 'nbdt-edit-effect');
const saidPart = make('p', 'nbdt-edit-said');
saidPart.setAttribute('role', 'status');
const backButton = button('Bring my earlier hierarchy back', () => trigger('edit_back', {}));
backButton.hidden = true;

let pressedIn = null; // the group whose button was pressed last

// Said below the buttons that were pressed: the end of the panel may be out of sight.
const sayEdit = (text, wrong) => {
  if (pressedIn && saidPart.parentElement !== pressedIn) pressedIn.append(saidPart, backButton);
  saidPart.textContent = text;
  saidPart.classList.toggle('wrong', Boolean(wrong));
};

const drawSaid = () => {
  const record = parsed(props.said);
  if (!record) return;
  if (record.kept) keepsTree(record.kept);
  sayEdit(record.text, !record.ok);
  backButton.hidden = !(record.back || (!record.ok && !backButton.hidden));
};

root.append(effectPart, versionsPart(), saidPart, backButton);
root.addEventListener('click', (event) => {
  pressedIn = event.target.closest('.nbdt-edit-group') || pressedIn;
}, true);
watch('effect', () => { drawEffect(); drawDifference(); });
watch('saved', drawSaved);
watch('difference', drawDifference);
watch('file', saveFile);
watch('said', drawSaid);
drawEffect();
drawSaved();

// The server forgets a hierarchy with its page; a reload would drop it without a word.
window.addEventListener('beforeunload', (event) => {
  if (root.isConnected && isUnsaved()) event.preventDefault();
});
