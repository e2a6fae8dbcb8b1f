// The edits of one node, for keyboard and touch, which cannot drag.

const menu = view.querySelector('.nbdt-tree-menu');

const LABELS = { move: 'Move to …', group: 'Group with …', merge: 'Merge with …', rename: 'Rename …', ungroup: 'Ungroup' };

const entries = (i) => Object.keys(LABELS).filter((kind) => offered[kind](i)).map((kind) => [LABELS[kind], () => askEdit(kind, i)]);

let openedAt = ''; // where the tree was scrolled to when the menu opened

const scrolled = () => scroller.scrollLeft + ' ' + scroller.scrollTop;

const closeMenu = (refocus) => {
  if (menu.hidden) return;
  menu.hidden = true;
  if (refocus) focusOn(focused);
};

const openMenu = (i, where) => {
  const made = entries(i).map(([label, action]) => {
    const entry = make('button', '', label);
    entry.type = 'button';
    entry.setAttribute('role', 'menuitem');
    entry.tabIndex = -1;
    entry.addEventListener('click', () => {
      closeMenu(true);
      action();
    });
    return entry;
  });
  focusOn(i);
  menu.setAttribute('aria-label', 'Edit ' + tree.names[i]);
  menu.replaceChildren(...made);
  menu.hidden = false;
  openedAt = scrolled();
  // Placed beside the node, inside the window.
  const box = menu.getBoundingClientRect();
  menu.style.left = Math.max(8, Math.min(where.left, window.innerWidth - box.width - 8)) + 'px';
  const below = where.bottom + 4 + box.height < window.innerHeight;
  menu.style.top = Math.max(8, below ? where.bottom + 4 : where.top - box.height - 4) + 'px';
  made[0].focus({ preventScroll: true });
};

menu.addEventListener('keydown', (event) => {
  const made = [...menu.children];
  const at = made.indexOf(document.activeElement);
  const goal = { ArrowDown: (at + 1) % made.length, ArrowUp: (at - 1 + made.length) % made.length, Home: 0, End: made.length - 1 }[event.key];
  if (goal !== undefined) made[goal].focus();
  else if (event.key === 'Escape' || event.key === 'Tab') closeMenu(true);
  else return;
  event.preventDefault();
  event.stopPropagation();
});
menu.addEventListener('focusout', (event) => {
  if (!menu.contains(event.relatedTarget)) closeMenu(false);
});
scroller.addEventListener('scroll', () => {
  // The event of a scroll that brought the node into view comes only after the menu has opened.
  if (scrolled() !== openedAt) closeMenu(menu.contains(document.activeElement));
});

list.addEventListener('contextmenu', (event) => {
  const i = nodeAt(event.target);
  if (i < 0) return;
  event.preventDefault();
  const box = parts.get(items.get(i)).row.getBoundingClientRect();
  const pointed = event.clientX || event.clientY;
  openMenu(i, pointed ? { left: event.clientX, top: event.clientY, bottom: event.clientY } : box);
});
