// The keyboard, as the ARIA practices have it for trees.

const TYPING = 700; // milliseconds within which letters are one word
let typed = '';
let typedAt = 0;

const visible = () => [...list.querySelectorAll('[role="treeitem"]')].map((made) => Number(made.dataset.i));

const step = (by) => {
  const order = visible();
  const at = order.indexOf(focused) + by;
  if (at >= 0 && at < order.length) focusOn(order[at]);
};

const typeahead = (key) => {
  const now = Date.now();
  typed = now - typedAt > TYPING ? key : typed + key;
  typedAt = now;
  const order = visible();
  const start = order.indexOf(focused) + (typed.length === 1 ? 1 : 0);
  const wanted = plain(typed);
  const found = [...order.slice(start), ...order.slice(0, start)].find((i) => plain(tree.names[i]).startsWith(wanted));
  if (found !== undefined) focusOn(found);
};

const keys = {
  ArrowDown: () => step(1),
  ArrowUp: () => step(-1),
  Home: () => focusOn(visible()[0]),
  End: () => focusOn(visible().at(-1)),
  ArrowRight: (i) => {
    if (!isGroup(i)) return;
    if (isOpen(i)) focusOn(shownChildren(i)[0]);
    else setOpen(i, true);
  },
  ArrowLeft: (i) => {
    if (isOpen(i)) setOpen(i, false);
    else if (i > 0) focusOn(tree.parents[i]);
  },
  Enter: (i) => select(i),
  ' ': (i) => (ticking ? tick(i) : select(i)),
  F2: (i) => isGroup(i) && askEdit('rename', i),
  '*': (i) => tree.children[tree.parents[i]]?.forEach((sibling) => setOpen(sibling, true)),
  ContextMenu: (i) => openMenu(i, rowOf(i).getBoundingClientRect()),
};

list.addEventListener('keydown', (event) => {
  const i = nodeAt(event.target);
  if (i < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
  const menuKey = event.key === 'F10' && event.shiftKey;
  const act = menuKey ? keys.ContextMenu : keys[event.key];
  if (act) act(i);
  else if (event.key.length === 1) typeahead(event.key);
  else return;
  event.preventDefault();
  event.stopPropagation();
});

// Undo and redo wherever no text is being written.
document.addEventListener('keydown', (event) => {
  if (!view.isConnected || dialog.open || !(event.ctrlKey || event.metaKey) || event.altKey) return;
  if (event.target instanceof Element && event.target.closest('input, textarea, [contenteditable]')) return;
  const key = event.key.toLowerCase();
  const kind = key === 'y' || (key === 'z' && event.shiftKey) ? 'redo' : key === 'z' ? 'undo' : '';
  if (!kind) return;
  event.preventDefault();
  goBack(kind);
});
