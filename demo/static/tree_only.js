// Check marks: which classes can occur. They stay in the browser until "Use these classes" sends
// them, so that a thousand can be ticked without waiting for the server.

const onlyButton = view.querySelector('.nbdt-tree-only');
const onlyBar = view.querySelector('.nbdt-tree-only-bar');
const onlyCount = view.querySelector('.nbdt-tree-only-count');
const allButton = view.querySelector('.nbdt-tree-all');
const ticked = new Set(); // names of classes
let tickedBelow = []; // number of ticked classes under each node
let ticking = false;
let onlySent = 0;

const isAllowed = (i) => !lit || !lit.allowed || lit.allowed.has(i);
const classesOf = (i) => tree.names.map((_, k) => k).filter((k) => !isGroup(k) && isInside(k, i));

const decorateTick = (i, made) => {
  made.classList.toggle('left-out', !isAllowed(i));
  if (!ticking) return made.removeAttribute('aria-checked');
  const many = tickedBelow[i];
  made.setAttribute('aria-checked', many === 0 ? 'false' : many === tree.leaves[i] ? 'true' : 'mixed');
};

const sayAllowed = () => {
  const all = tree.leaves[0].toLocaleString('en');
  const now = lit && lit.only ? lit.only.length.toLocaleString('en') : 'All ' + all;
  const text = lit && lit.only ? `${now} of ${all} classes are allowed.` : `${now} classes are allowed.`;
  onlyCount.textContent = ticking ? `${text} ${ticked.size.toLocaleString('en')} ticked.` : text;
  onlyBar.hidden = !ticking && !(lit && lit.only);
  allButton.hidden = !(lit && lit.only);
  onlyBar.classList.toggle('ticking', ticking);
  onlyButton.setAttribute('aria-pressed', String(ticking));
};

const drawTicks = () => {
  tickedBelow = tree.names.map((name, i) => (!isGroup(i) && ticked.has(name) ? 1 : 0));
  for (let i = tree.count - 1; i > 0; i -= 1) tickedBelow[tree.parents[i]] += tickedBelow[i];
  view.classList.toggle('ticking', ticking);
  for (const [i, made] of items) decorateTick(i, made);
  sayAllowed();
};

// A group ticks or clears all of its classes.
const tick = (i) => {
  const clear = tickedBelow[i] === tree.leaves[i];
  for (const k of classesOf(i)) clear ? ticked.delete(tree.names[k]) : ticked.add(tree.names[k]);
  focusOn(i);
  drawTicks();
};

const setTicking = (on) => {
  ticking = on;
  ticked.clear();
  if (on && lit && lit.only) lit.only.forEach((k) => ticked.add(tree.names[k]));
  drawTicks();
};

const sendAllowed = (names) => {
  onlySent -= 1; // edits have positive numbers
  trigger('tree_only', { names, seq: onlySent });
};

// What the server now allows; what is being ticked stays as it is.
const newAllowed = () => {
  if (lit && lit.only) {
    lit.allowed = new Set();
    for (const k of lit.only) for (let at = k; at >= 0; at = tree.parents[at]) lit.allowed.add(at);
  }
  drawTicks();
};

onlyButton.addEventListener('click', () => setTicking(!ticking));
view.querySelector('.nbdt-tree-use').addEventListener('click', () => sendAllowed([...ticked]));
allButton.addEventListener('click', () => {
  sendAllowed(null);
  setTicking(false);
});
