// A small tree on a wide screen is drawn from left to right, with branches as wide as likely.

const canvas = view.querySelector('.nbdt-tree-canvas');
const drawing = view.querySelector('.nbdt-tree-branches');
const GAP = 34; // pixels between columns
const NARROWEST = 100; // and of a column
const WIDEST = 176;
const MOST_LEAVES = 32;

const branch = (path, name, width) => {
  const made = document.createElementNS('http://www.w3.org/2000/svg', 'path');
  made.setAttribute('d', path);
  made.setAttribute('class', name);
  made.setAttribute('stroke-width', width);
  return made;
};

const curve = (from, to, origin) => {
  const x1 = from.right - origin.left, y1 = from.top + from.height / 2 - origin.top;
  const x2 = to.left - origin.left, y2 = to.top + to.height / 2 - origin.top;
  const bend = (x2 - x1) / 2;
  return 'M' + [x1, y1].join(' ') + 'C' + [x1 + bend, y1, x2 - bend, y2, x2, y2].join(' ');
};

const drawBranches = () => {
  drawing.replaceChildren();
  if (!tree || !view.classList.contains('across')) return;
  const origin = canvas.getBoundingClientRect();
  drawing.setAttribute('width', canvas.scrollWidth);
  drawing.setAttribute('height', canvas.scrollHeight);
  const boxes = new Map([...items].map(([i, made]) => [i, parts.get(made).row.getBoundingClientRect()]));
  const made = [...boxes].filter(([i]) => i > 0).map(([i, box]) => {
    const name = isLit(i) ? 'lit' : lit && lit.ghost.has(i) ? 'ghost' : isWeighed(i) ? 'weighed' : '';
    const width = isWeighed(i) ? 1.5 + 5 * share(i) : 1.5;
    return [isLit(i), branch(curve(boxes.get(tree.parents[i]), box, origin), name, width)];
  });
  made.sort((one, two) => one[0] - two[0]); // the lit ones on top
  drawing.append(...made.map(([, path]) => path));
};

// Decided by the whole tree, not by what is open, so that a click never turns the picture.
const chooseLayout = () => {
  if (!tree) return;
  const levels = Math.max(...tree.depth) + 1;
  const column = (scroller.clientWidth - 24 - (levels - 1) * GAP) / levels;
  const across = tree.leaves[0] <= MOST_LEAVES && column >= NARROWEST;
  view.classList.toggle('across', across);
  view.classList.toggle('small', tree.count <= SMALL);
  view.style.setProperty('--nbdt-tree-column', Math.min(WIDEST, Math.floor(column)) + 'px');
  drawBranches();
};

new ResizeObserver(chooseLayout).observe(scroller);
const afterDraw = () => drawBranches();
