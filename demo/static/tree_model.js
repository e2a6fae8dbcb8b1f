// The tree as arrays, what is open in it, and what the current photograph lights up.

const SMALL = 40; // nodes up to which everything starts open

let tree = null;
let lit = null; // {p, path: indices, on: Set of indices, ghost: Set of indices, undo, redo}
let selectedId = null;
let hits = null; // what a search found, see tree_search.js
const choices = new Map(); // id -> open or closed, where the visitor chose

const readTree = (text) => {
  const record = parsed(text);
  const count = record.parents.length;
  const found = { ...record, text, count, children: [], leaves: new Array(count).fill(0), depth: [] };
  found.ids = record.ids.map((id, i) => (id === 0 ? record.names[i] : id));
  found.index = new Map(found.ids.map((id, i) => [id, i]));
  for (let i = 0; i < count; i += 1) {
    found.children.push([]);
    const parent = record.parents[i];
    found.depth.push(parent < 0 ? 0 : found.depth[parent] + 1);
    if (parent >= 0) found.children[parent].push(i);
  }
  for (let i = count - 1; i >= 0; i -= 1) {
    if (!found.children[i].length) found.leaves[i] = 1;
    if (i) found.leaves[record.parents[i]] += found.leaves[i];
  }
  return found;
};

// A record of another tree is out of date: the one that fits is on its way.
const readLit = (text) => {
  const record = parsed(text);
  if (!record || record.hash !== tree.hash) return null;
  const path = record.path || [];
  const ghost = (record.ghost || []).map((id) => tree.index.get(id)).filter((i) => i !== undefined);
  return { ...record, path, on: new Set(path), ghost: new Set(ghost) };
};

const isGroup = (i) => tree.children[i].length > 0;
const isLit = (i) => Boolean(lit) && lit.on.has(i);
// A step's probability is shown where a choice was made: at the children of the path's groups.
const isWeighed = (i) => i > 0 && isLit(tree.parents[i]);
const share = (i) => (lit && lit.p ? lit.p[i] : null);

const isOpen = (i) => {
  if (!isGroup(i)) return false;
  if (hits) return hits.open.has(i);
  const chosen = choices.get(tree.ids[i]);
  if (chosen !== undefined) return chosen;
  return tree.count <= SMALL || i === 0 || isLit(i);
};

const isInside = (i, group) => {
  for (let at = i; at >= 0; at = tree.parents[at]) if (at === group) return true;
  return false;
};

const counted = (n) => (n === 1 ? '1 class' : n.toLocaleString('en') + ' classes');

// What a screen reader says of a node.
const spoken = (i) => {
  const words = [tree.names[i], isGroup(i) ? 'group of ' + counted(tree.leaves[i]) : 'class'];
  if (isWeighed(i)) words.push(percent(share(i)) + ' at ' + tree.names[tree.parents[i]]);
  if (isLit(i)) words.push('on the path');
  if (lit && lit.ghost.has(i) && !isLit(i)) words.push('on the path before the edit');
  return words.join(', ');
};

// Where a node is, from the root: several groups may have one name.
const trail = (i) => {
  const names = [];
  for (let at = tree.parents[i]; at >= 0; at = tree.parents[at]) names.unshift(tree.names[at]);
  return names.join(' › ');
};
