// Example photographs: buttons, since a click must not wait for an upload.

const root = element.querySelector('.nbdt-examples');

const button = (example) => {
  const made = make('button', 'nbdt-example');
  made.type = 'button';
  made.title = example.credit;
  made.append(picture(example.picture, ''), make('span', 'nbdt-example-name', example.name));
  if (example.note) made.append(make('span', 'nbdt-example-note', example.note));
  made.addEventListener('click', () => trigger('pick', { name: example.name }));
  return made;
};

const draw = () => {
  const row = make('div', 'nbdt-example-row');
  row.append(...parsed(props.examples).map(button));
  root.replaceChildren(make('p', 'nbdt-small', 'Or try one of these'), row);
};

draw();
