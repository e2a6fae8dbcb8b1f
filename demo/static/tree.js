// The tree: puts the parts together and answers to what the server sends.

let clicks = 0;

const select = (i) => {
  const old = selectedId === null ? undefined : tree.index.get(selectedId);
  selectedId = tree.ids[i];
  focusOn(i);
  redecorate(old === undefined ? [i] : [old, i]);
  clicks += 1;
  trigger('node_select', { id: selectedId, seq: clicks });
};

list.addEventListener('click', (event) => {
  const i = nodeAt(event.target);
  if (i < 0 || justDragged || event.target.closest('button')) return;
  if (event.target.closest('.nbdt-tree-twist') && isGroup(i)) {
    setOpen(i, !isOpen(i));
    focusOn(i);
    return;
  }
  if (ticking) return tick(i);
  setOpen(i, true);
  select(i);
});

const foldButton = view.querySelector('.nbdt-tree-fold');
foldButton.title = 'Close every group that is not on the path';
foldButton.addEventListener('click', () => {
  clearSearch();
  choices.clear();
  if (tree.count <= SMALL) for (let i = 1; i < tree.count; i += 1) if (isGroup(i) && !isLit(i)) choices.set(tree.ids[i], false);
  if (!isLit(focused)) focused = 0;
  drawAll();
});

// ---- what arrives ------------------------------------------------------------------------------

const newTree = () => {
  const old = tree;
  const focusId = focusAfter ?? (old ? old.ids[focused] : null);
  const had = !old || list.contains(document.activeElement) || document.activeElement === document.body;
  const opened = old ? old.ids.filter((_, i) => isOpen(i)) : [];
  tree = readTree(props.tree);
  items.clear(); // their numbers were those of the old tree
  drag = null;
  // What was open stays open; a new group is open, so that one sees what is in it.
  if (old && !hits) for (const id of opened) if (!choices.has(id)) choices.set(id, true);
  if (old) tree.ids.forEach((id, i) => isGroup(i) && !old.index.has(id) && choices.set(id, true));
  hits = hits ? hitsOf(field.value) : null;
  sayCount();
  focused = tree.index.get(focusId) ?? 0;
  lit = null;
  // What the line below says is of the last edit; this tree may come from a file or a version.
  const reply = parsed(props.reply);
  if (old && (!reply || reply.hash !== tree.hash)) say('');
  return Boolean(old) && had;
};

const newPath = () => {
  const old = lit;
  lit = readLit(props.path);
  const path = lit ? lit.path.join() : '';
  if (lit && (!old || old.path.join() !== path)) for (const i of lit.path) choices.delete(tree.ids[i]);
  if (lit && (selectedId === null || lit.selected === null || !tree.index.has(selectedId))) selectedId = lit.selected;
  drawButtons();
};

// What two photographs light up, and what is weighed beside it; the selection may change, too.
const touched = (...records) => {
  const found = new Set(items.has(0) ? [0] : []);
  for (const record of records.filter(Boolean)) {
    for (const i of [...record.path, ...record.ghost]) {
      found.add(i);
      tree.children[i].forEach((child) => found.add(child));
    }
  }
  list.querySelectorAll('[aria-selected="true"]').forEach((made) => found.add(Number(made.dataset.i)));
  if (selectedId !== null && tree.index.has(selectedId)) found.add(tree.index.get(selectedId));
  return found;
};

// Of many classes the answer's may be outside what is seen; the page itself stays where it is.
const showLit = () => {
  const made = items.get(lit.path.at(-1));
  if (!made) return;
  const row = parts.get(made).row.getBoundingClientRect();
  const seen = scroller.getBoundingClientRect();
  if (row.top < seen.top || row.bottom > seen.bottom) scroller.scrollTop += row.top - seen.top - (seen.height - row.height) / 2;
};

const receive = () => {
  if (!props.tree) return;
  const changed = !tree || tree.text !== props.tree;
  const keep = changed && newTree();
  const old = lit;
  newPath();
  newAllowed();
  const before = new Set(old ? old.path : []);
  if (changed || (lit ? lit.path : []).some((i) => isGroup(i) && !before.has(i))) {
    chooseLayout();
    drawAll();
    if (keep) {
      reveal(focused);
      focusOn(focused);
    }
  } else {
    redecorate(touched(old, lit));
    afterDraw();
  }
  if (!keep && lit && (!old || old.path.join() !== lit.path.join())) showLit();
  focusAfter = null;
};

watch(['tree', 'path'], receive);
watch('reply', () => {
  const reply = parsed(props.reply);
  if (reply && reply.ok && reply.seq === onlySent && ticking) setTicking(false);
  answered(props.reply);
});
watch('names', () => {
  const reply = parsed(props.names);
  if (reply) offerNames(reply);
});
receive();
