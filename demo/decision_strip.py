"""The strip of decisions: a static template, data as a property, text set as text.

Gradio evaluates HTML templates as JavaScript template strings, so a name that holds ``${…}`` would
run as code. Nothing here is interpolated: the script builds the elements and sets `textContent`.
"""

TEMPLATE = '<section class="nbdt-strip" aria-live="polite"></section>'

CSS = """
.nbdt-strip { font-size: 1rem; line-height: 1.4; }
.nbdt-strip .answer { font-size: 1.6rem; font-weight: 700; margin: 0 0 .2rem; }
.nbdt-strip .trail { margin: 0 0 1rem; opacity: .85; }
.nbdt-strip ol { list-style: none; margin: 0; padding: 0; display: flex; flex-wrap: wrap; gap: 1rem; }
.nbdt-strip li { width: 200px; }
.nbdt-strip img { width: 200px; height: 200px; border-radius: 8px; display: block; }
.nbdt-strip .step { font-weight: 700; margin: .4rem 0 0; }
.nbdt-strip .bar { height: 8px; border-radius: 4px; background: #8884; overflow: hidden; }
.nbdt-strip .bar div { height: 100%; background: #d62828; }
.nbdt-strip .note { font-size: .85rem; opacity: .8; margin: .2rem 0 0; }
"""

JS = """
const root = element.querySelector('.nbdt-strip');
const make = (tag, name, text) => {
  const node = document.createElement(tag);
  if (name) node.className = name;
  if (text !== undefined) node.textContent = text;
  return node;
};
const percent = p => (100 * p).toFixed(1) + ' %';
const picture = (url, alt) => {
  const image = make('img');
  if (url.startsWith('data:image/png;base64,')) image.src = url;
  image.alt = alt;
  return image;
};
const card = (image, title, probability, note) => {
  const item = make('li');
  const bar = make('div', 'bar'), fill = make('div');
  fill.style.width = (100 * probability) + '%';
  bar.append(fill);
  item.append(image, make('p', 'step', title + '  ' + percent(probability)), bar,
              make('p', 'note', note));
  return item;
};
const draw = () => {
  if (!props.record) {
    root.replaceChildren(make('p', 'note', 'The decision appears here.'));
    return;
  }
  const r = JSON.parse(props.record);
  const names = r.path.map(d => d.chosen + ' (' + percent(d.probability) + ')');
  const list = make('ol');
  list.append(card(picture(r.photo, 'the part of the photograph that the model sees'), r.class,
                   r.probability, 'over the whole path'));
  r.path.forEach((d, i) => {
    const chance = Math.exp(d.children.find(c => c.name === d.runner_up).log_prob);
    list.append(card(picture(r.pictures[i], 'heat map for ' + d.chosen), d.chosen, d.probability,
                     'at ' + d.node + ', rather than ' + d.runner_up + ' ' + percent(chance)));
  });
  const note = 'Red parts spoke for the step, blue parts against it; one colour scale for all. ' +
    'The maps have ' + r.resolution + ' positions and are drawn smoothed.';
  root.replaceChildren(make('p', 'answer', r.class),
                       make('p', 'trail', [r.path[0].node, ...names].join(' → ')),
                       list, make('p', 'note', note));
};
watch('record', draw);
draw();
"""
