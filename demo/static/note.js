// One line for results and errors; screen readers read it out.

const root = element.querySelector('.nbdt-note');

const draw = () => {
  root.textContent = props.text || '';
};

watch('text', draw);
draw();
