// The panel below the tree: what the edits change, and where they can be kept.

const root = element.querySelector('.nbdt-edit');
const effectPart = make('div', 'nbdt-edit-effect');
const statusLine = make('p', 'nbdt-edit-status');
statusLine.setAttribute('role', 'status');
const backButton = button('Bring my earlier hierarchy back', () => trigger('edit_back', {}));
backButton.hidden = true;

let pressedIn = null; // the group whose button was pressed last

// Shown below the buttons that were pressed, since the end of the panel may be out of sight.
const sayEdit = (text, wrong) => {
  if (pressedIn && statusLine.parentElement !== pressedIn) pressedIn.append(statusLine, backButton);
  statusLine.textContent = text;
  statusLine.classList.toggle('wrong', Boolean(wrong));
};

const drawStatus = () => {
  const record = parsed(props.status);
  if (!record) return;
  if (record.kept) keepsTree(record.kept);
  sayEdit(record.text, !record.ok);
  backButton.hidden = !(record.back || (!record.ok && !backButton.hidden));
};

root.append(effectPart, versionsPart(), statusLine, backButton);
root.addEventListener('click', (event) => {
  pressedIn = event.target.closest('.nbdt-edit-group') || pressedIn;
}, true);
watch('effect', () => { drawEffect(); drawDifference(); });
watch('saved', drawSaved);
watch('difference', drawDifference);
watch('file', saveFile);
watch('status', drawStatus);
drawEffect();
drawSaved();

// The server forgets a hierarchy with its page, so a reload would drop it silently.
window.addEventListener('beforeunload', (event) => {
  if (root.isConnected && isUnsaved()) event.preventDefault();
});
