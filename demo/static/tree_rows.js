// The nodes as list items. Children are made when their group opens: 1,000 classes stay quick.

const view = element.querySelector('.nbdt-tree');
const list = view.querySelector('.nbdt-tree-root');
const scroller = view.querySelector('.nbdt-tree-scroll');
const items = new Map(); // node index -> its list item, while it is shown
let focused = 0;

const parts = new WeakMap(); // list item -> its parts

const nameOf = (i) => {
  const label = make('span', 'nbdt-tree-name');
  const at = hits ? hits.place(i) : -1;
  if (at < 0) label.textContent = tree.names[i];
  else {
    const end = at + hits.length;
    label.append(tree.names[i].slice(0, at), make('mark', '', tree.names[i].slice(at, end)), tree.names[i].slice(end));
  }
  if (hits && hits.other(i)) label.append(' (', make('mark', '', hits.other(i)), ')');
  return label;
};

const row = (i) => {
  const made = make('div', 'nbdt-tree-row');
  const twist = make('span', 'nbdt-tree-twist');
  twist.setAttribute('aria-hidden', 'true');
  const size = make('span', 'nbdt-tree-size', isGroup(i) ? tree.leaves[i].toLocaleString('en') : '');
  const bar = make('span', 'nbdt-tree-bar-share');
  const fill = make('i');
  bar.append(fill);
  const number = make('span', 'nbdt-tree-share');
  const check = make('span', 'nbdt-tree-check');
  check.setAttribute('aria-hidden', 'true');
  made.append(twist, check, nameOf(i), size, bar, number);
  made.title = trail(i) ? tree.names[i] + '  (' + trail(i) + ')' : tree.names[i];
  return { row: made, fill, number };
};

const item = (i) => {
  const made = make('li', isGroup(i) ? 'group' : 'class');
  made.setAttribute('role', 'treeitem');
  made.setAttribute('aria-level', tree.depth[i] + 1);
  made.tabIndex = i === focused ? 0 : -1;
  made.dataset.i = i;
  const own = row(i);
  parts.set(made, own);
  made.append(own.row);
  items.set(i, made);
  decorate(i);
  if (isOpen(i)) unfold(i);
  return made;
};

const shownChildren = (i) => (hits ? tree.children[i].filter((child) => hits.shown.has(child)) : tree.children[i]);

const unfold = (i) => {
  const branch = make('ul');
  branch.setAttribute('role', 'group');
  branch.append(...shownChildren(i).map(item));
  items.get(i).append(branch);
  decorate(i);
  lightBefore(i);
};

const forget = (i) => {
  for (const child of tree.children[i]) {
    if (items.has(child)) forget(child);
    items.delete(child);
  }
};

const fold = (i) => {
  items.get(i).querySelector(':scope > ul').remove();
  forget(i);
  decorate(i);
};

// Everything about an item that the photograph or the selection can change.
const decorate = (i) => {
  const made = items.get(i);
  const { row: own, fill, number } = parts.get(made);
  const selected = tree.ids[i] === selectedId;
  made.setAttribute('aria-label', spoken(i));
  made.setAttribute('aria-selected', String(selected));
  if (isGroup(i)) made.setAttribute('aria-expanded', String(isOpen(i)));
  made.classList.toggle('lit', isLit(i));
  made.classList.toggle('ghost', Boolean(lit) && lit.ghost.has(i) && !isLit(i));
  made.classList.toggle('weighed', isWeighed(i));
  own.classList.toggle('selected', selected);
  number.textContent = isWeighed(i) ? percent(share(i)) : '';
  fill.style.width = isWeighed(i) ? 100 * share(i) + '%' : '0';
  decorateTick(i, made);
  moreButton(i, own, selected);
};

const moreButton = (i, own, selected) => {
  const known = own.querySelector('.nbdt-tree-more');
  if (known && !selected) known.remove();
  if (known || !selected) return;
  const button = make('button', 'nbdt-tree-more', '⋯');
  button.type = 'button';
  button.tabIndex = -1; // the keyboard has Shift+F10
  button.setAttribute('aria-label', 'Edit ' + tree.names[i]);
  button.setAttribute('aria-haspopup', 'menu');
  button.addEventListener('click', (event) => {
    event.stopPropagation();
    openMenu(i, button.getBoundingClientRect());
  });
  own.append(button);
};

// In the outline the lit line runs past the siblings above the lit one.
const lightBefore = (i) => {
  const below = tree.children[i].findIndex(isLit);
  tree.children[i].forEach((child, place) => items.get(child)?.classList.toggle('before-lit', place < below));
};

const redecorate = (touched) => {
  for (const i of touched) {
    if (!items.has(i)) continue;
    decorate(i);
    if (isGroup(i) && isOpen(i)) lightBefore(i);
  }
};

const drawAll = () => {
  const top = scroller.scrollTop;
  items.clear();
  if (hits && !hits.shown.size) list.replaceChildren();
  else list.replaceChildren(item(0));
  scroller.scrollTop = top;
  afterDraw();
};

const reveal = (i) => {
  if (hits && !hits.shown.has(i)) clearSearch();
  for (let at = tree.parents[i]; at >= 0; at = tree.parents[at]) if (!isOpen(at)) choices.set(tree.ids[at], true);
  if (!items.has(i)) drawAll();
};

const setOpen = (i, open) => {
  if (!isGroup(i) || open === isOpen(i)) return;
  if (hits) open ? hits.open.add(i) : hits.open.delete(i);
  else choices.set(tree.ids[i], open);
  if (open && hits) for (const child of tree.children[i]) hits.shown.add(child);
  if (!open && isInside(focused, i)) focusOn(i);
  open ? unfold(i) : fold(i);
  afterDraw();
};

const focusOn = (i, options) => {
  const old = items.get(focused);
  if (old) old.tabIndex = -1;
  focused = i;
  const made = items.get(i);
  if (!made) return;
  made.tabIndex = 0;
  made.focus({ preventScroll: true });
  parts.get(made).row.scrollIntoView({ block: 'nearest', inline: 'nearest', ...options });
};

const nodeAt = (target) => {
  const made = target instanceof Element ? target.closest('[role="treeitem"]') : null;
  return made && list.contains(made) ? Number(made.dataset.i) : -1;
};
