// The probabilities of a decision.

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
