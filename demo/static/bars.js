// A decision: its pictures and its probabilities.

const bar = (child, kind) => {
  const row = make('div', 'nbdt-bar nbdt-bar-' + kind);
  const track = make('span', 'nbdt-track');
  const fill = make('span', 'nbdt-fill');
  fill.style.inlineSize = 100 * child.probability + '%';
  track.append(fill);
  row.append(make('span', 'nbdt-name', child.name), make('span', 'nbdt-share', percent(child.probability)), track);
  return row;
};

// The chosen child, its rival, and one line for all others.
const bars = (decision) => {
  const group = make('div', 'nbdt-bars');
  group.append(bar(decision.chosen, 'chosen'), bar(decision.rival, 'rival'));
  if (decision.others) {
    group.append(make('p', 'nbdt-others', `${decision.others.count} more share ${percent(decision.others.probability)}`));
  }
  return group;
};

// Pictures beside each other, with captions if there are two; the cells of the network's grid can be
// laid over them.
const framed = (pictures) => {
  const group = make('div', 'nbdt-pictures');
  group.append(...pictures.map((one) => {
    const figure = make('figure');
    const frame = make('div', 'nbdt-frame');
    frame.style.setProperty('--columns', one.grid[0]);
    frame.style.setProperty('--rows', one.grid[1]);
    frame.append(picture(one.picture, one.alt));
    figure.append(frame);
    if (pictures.length > 1) figure.append(make('figcaption', '', one.caption));
    return figure;
  }));
  return group;
};
