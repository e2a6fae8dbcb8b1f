// Versions and files. A download is made here, from text: there is no file on the server.

const MAX_FILE = 4 * 1024 * 1024; // bytes
let downloads = 0;

const button = (label, action, primary) => {
  const made = make('button', primary ? 'primary' : '', label);
  made.type = 'button';
  made.addEventListener('click', action);
  return made;
};

const labelled = (text, control) => {
  const made = make('label', 'nbdt-edit-field');
  made.append(make('span', '', text), control);
  return made;
};

const options = (select, entries) => {
  const before = select.value;
  select.replaceChildren(...entries.map(([value, text]) => {
    const made = make('option', '', text);
    made.value = value;
    return made;
  }));
  if (entries.some(([value]) => value === before)) select.value = before;
};

const chosen = (select) => (/^\d+$/.test(select.value) ? Number(select.value) : select.value);

const nameField = make('input');
nameField.type = 'text';
nameField.maxLength = 200;
nameField.autocomplete = 'off';
const versionList = make('select');
const firstList = make('select');
const secondList = make('select');

const saveButton = button('Save', () => {
  trigger('edit_save', { name: nameField.value });
}, true);
const loadButton = button('Load', () => trigger('edit_load', { version: chosen(versionList) }));
nameField.addEventListener('keydown', (event) => {
  if (event.key === 'Enter') saveButton.click();
});

const picker = make('input', 'nbdt-edit-file');
picker.type = 'file';
picker.accept = '.json,.txt,.csv,.tsv,.md,.yaml,.yml,.toml,.nwk,.newick,application/json,text/plain,text/csv';
picker.addEventListener('change', async () => {
  const file = picker.files[0];
  picker.value = '';
  if (!file) return;
  if (file.size > MAX_FILE) sayEdit('The file has ' + file.size.toLocaleString('en') + ' bytes; a hierarchy has at most ' + MAX_FILE.toLocaleString('en') + '.', true);
  else trigger('edit_upload', { name: file.name, text: await file.text() });
});

const group = (title, ...parts) => {
  const made = make('div', 'nbdt-edit-group');
  made.append(make('h3', '', title), ...parts);
  return made;
};

const line = (...parts) => {
  const made = make('div', 'nbdt-edit-line');
  made.append(...parts);
  return made;
};

const keepsNothing = make('p', 'nbdt-small', 'This page has no store; download your hierarchy to keep it.');
const saving = line(labelled('Name', nameField), saveButton);
const loading = line(labelled('Saved version', versionList), loadButton);
const compareOutput = make('div', 'nbdt-edit-difference');
compareOutput.setAttribute('role', 'status');

const localTime = (text) => {
  const time = new Date(text);
  return Number.isNaN(time.getTime()) ? text : time.toLocaleString([], { dateStyle: 'medium', timeStyle: 'short' });
};

const drawSaved = () => {
  const saved = parsed(props.saved) || { keeps: false, versions: [] };
  const versions = saved.versions.map((one) => [String(one.id), one.label + ' (' + localTime(one.time) + ')']);
  const own = [['own', 'the model’s own'], ['now', 'yours now']];
  options(versionList, versions);
  options(firstList, [...own, ...versions]);
  options(secondList, [...own.slice().reverse(), ...versions]);
  saving.hidden = !saved.keeps;
  loading.hidden = !versions.length;
  keepsNothing.hidden = saved.keeps;
};

const drawDifference = () => {
  const record = parsed(props.difference);
  const effect = parsed(props.effect);
  // A comparison with 'yours now' holds only for the hierarchy at that time.
  if (!record || (effect && effect.hash !== record.now)) return compareOutput.replaceChildren();
  const lines = make('ul');
  lines.append(...record.lines.map((text) => make('li', '', text)));
  compareOutput.replaceChildren(make('p', 'nbdt-eyebrow', record.title), lines);
};

const saveFile = () => {
  const record = parsed(props.file);
  if (!record || record.seq !== downloads) return;
  const url = URL.createObjectURL(new Blob([record.text], { type: 'text/plain' }));
  const link = make('a');
  link.href = url;
  link.download = record.name;
  link.click();
  keepsTree(record.kept);
  setTimeout(() => URL.revokeObjectURL(url), 10000);
};

const versionsPart = () => {
  const made = make('details', 'nbdt-edit-versions');
  const download = button('Download', () => {
    downloads += 1;
    trigger('edit_download', { seq: downloads });
  });
  const compare = button('Compare', () => trigger('edit_compare', { version: chosen(firstList), other: chosen(secondList) }));
  made.append(
    make('summary', '', 'Save, load, compare, download'),
    group('Versions', keepsNothing, saving, loading),
    group('Compare', line(labelled('From', firstList), labelled('To', secondList), compare), compareOutput),
    group('Files', line(download, button('Open a file …', () => picker.click()), picker)),
    group('Start again', line(button('Back to the model’s own hierarchy', () => trigger('edit_reset', {})))),
  );
  made.addEventListener('toggle', () => {
    if (made.open) trigger('edit_versions', {});
  });
  return made;
};
