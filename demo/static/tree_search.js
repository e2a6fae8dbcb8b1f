// Searching narrows the tree to what matches and the groups above it.

const field = view.querySelector('.nbdt-tree-search');
const count = view.querySelector('.nbdt-tree-count');
const MOST_HITS = 200; // shown at once

// Without accents and case. A letter stays one letter, so that places in both texts agree.
const plain = (text) => [...text].map((c) => {
  const bare = c.normalize('NFD').replace(/\p{M}/gu, '').toLowerCase();
  return bare.length === c.length ? bare : c;
}).join('');

const synonyms = new Map(Object.entries(parsed(props.synonyms) || {}));
const synonym = (i, wanted) => (synonyms.get(tree.names[i]) || []).find((word) => plain(word).includes(wanted));

// Those whose name has it; where no name has it, those with a synonym that has it.
const matching = (wanted, among) => {
  const found = among.filter((i) => plain(tree.names[i]).includes(wanted));
  return found.length ? found : among.filter((i) => synonym(i, wanted));
};

const hitsOf = (query) => {
  const wanted = plain(query.trim());
  if (!wanted) return null;
  const found = matching(wanted, tree.names.map((_, i) => i));
  const shown = new Set(), open = new Set();
  for (const i of found.slice(0, MOST_HITS)) {
    shown.add(i);
    for (let at = tree.parents[i]; at >= 0; at = tree.parents[at]) {
      shown.add(at);
      open.add(at);
    }
  }
  const matched = new Set(found);
  const place = (i) => (matched.has(i) ? plain(tree.names[i]).indexOf(wanted) : -1);
  const other = (i) => (matched.has(i) && place(i) < 0 ? synonym(i, wanted) : '');
  return { found, matched, shown, open, place, other, length: wanted.length };
};

const sayCount = () => {
  const many = hits ? hits.found.length : 0;
  const shown = many > MOST_HITS ? ', the first ' + MOST_HITS + ' shown' : '';
  count.textContent = hits ? (many === 1 ? '1 match' : many.toLocaleString('en') + ' matches') + shown : '';
};

const search = () => {
  hits = hitsOf(field.value);
  sayCount();
  drawAll();
};

const clearSearch = () => {
  field.value = '';
  hits = null;
  sayCount();
};

let later = 0;
field.addEventListener('input', () => {
  cancelAnimationFrame(later);
  later = requestAnimationFrame(search);
});
field.addEventListener('keydown', (event) => {
  if (event.key === 'Escape' && field.value) {
    event.preventDefault();
    clearSearch();
    drawAll();
  }
  if (!['ArrowDown', 'Enter'].includes(event.key)) return;
  cancelAnimationFrame(later);
  search(); // of what was typed last
  if (!items.size) return;
  event.preventDefault();
  focusOn(hits && hits.found.length ? hits.found[0] : 0);
});
