// Dragging with a mouse or a pen. A finger scrolls; held still, it opens the menu.

const dragged = view.querySelector('.nbdt-tree-dragged');
const FAR = 6; // pixels until a press is a drag
const EDGE = 44; // pixels from the edge where it scrolls
const HOLD = 550; // milliseconds that a finger rests, or a dragged node over a closed group
let drag = null;
let justDragged = false;

const rowOf = (i) => parts.get(items.get(i)).row;

const begin = (event) => {
  const i = nodeAt(event.target);
  if (i < 0 || event.button !== 0 || event.target.closest('button')) return;
  if (event.pointerType === 'touch') {
    hold(event, i);
    return;
  }
  drag = { i, x: event.clientX, y: event.clientY, id: event.pointerId, over: -1, moving: false };
};

const hold = (event, i) => {
  const timer = setTimeout(() => openMenu(i, rowOf(i).getBoundingClientRect()), HOLD);
  const give = (name) => list.addEventListener(name, () => clearTimeout(timer), { once: true });
  ['pointermove', 'pointerup', 'pointercancel'].forEach(give);
};

const lift = () => {
  if (drag.i === 0) return; // the root holds everything
  drag.moving = true;
  list.setPointerCapture(drag.id);
  rowOf(drag.i).classList.add('lifted');
  view.classList.add('dragging');
  dragged.hidden = false;
};

const meaning = (over) => {
  if (over < 0 || over === drag.i) return null;
  if (isGroup(over)) return canMoveInto(drag.i, over) ? ['into', 'Move into ' + quoted(over)] : null;
  return canGroup(drag.i, over) ? ['with', 'Group with ' + quoted(over)] : null;
};

const hover = (over) => {
  if (over === drag.over) return;
  leave();
  drag.over = over;
  const means = meaning(over);
  dragged.replaceChildren(make('b', '', tree.names[drag.i]), make('small', '', means ? means[1] : 'Drop on a group or a class'));
  dragged.classList.toggle('no', !means);
  if (!means) return;
  rowOf(over).classList.add('drop-' + means[0]);
  if (!isGroup(over) || isOpen(over)) return;
  drag.spring = setTimeout(() => setOpen(over, true), HOLD);
};

const leave = () => {
  clearTimeout(drag.spring);
  if (drag.over >= 0 && items.has(drag.over)) rowOf(drag.over).classList.remove('drop-into', 'drop-with');
};

const moveTo = (event) => {
  if (!drag || event.pointerId !== drag.id) return;
  const far = Math.hypot(event.clientX - drag.x, event.clientY - drag.y) > FAR;
  if (!drag.moving && far) lift();
  if (!drag || !drag.moving) return;
  drag.at = { x: event.clientX, y: event.clientY };
  dragged.style.transform = 'translate(' + (drag.at.x + 14) + 'px,' + (drag.at.y + 10) + 'px)';
  look();
  if (!drag.scrolling) drag.scrolling = requestAnimationFrame(scrollAtEdge);
};

const look = () => hover(nodeAt(document.elementFromPoint(drag.at.x, drag.at.y)));

const pull = (at, low, high) => (at < low + EDGE ? at - low - EDGE : at > high - EDGE ? at - high + EDGE : 0) / 4;

const scrollAtEdge = () => {
  if (!drag || !drag.moving) return;
  const box = scroller.getBoundingClientRect();
  const inside = drag.at.x > box.left && drag.at.x < box.right;
  scroller.scrollTop += inside ? pull(drag.at.y, Math.max(0, box.top), Math.min(window.innerHeight, box.bottom)) : 0;
  scroller.scrollLeft += inside ? pull(drag.at.x, box.left, box.right) : 0;
  window.scrollBy(0, pull(drag.at.y, 0, window.innerHeight));
  look();
  drag.scrolling = requestAnimationFrame(scrollAtEdge);
};

const end = (drop) => {
  if (!drag) return;
  const { i, over, moving } = drag;
  const means = moving && drop ? meaning(over) : null;
  if (moving) {
    leave();
    cancelAnimationFrame(drag.scrolling);
    if (items.has(i)) rowOf(i).classList.remove('lifted');
    view.classList.remove('dragging');
    dragged.hidden = true;
    justDragged = true; // the browser's next click is part of the drag
    setTimeout(() => {
      justDragged = false;
    });
  }
  drag = null;
  if (!means) return;
  focusOn(i);
  if (means[0] === 'into') send('move', [tree.ids[i]], tree.ids[over]);
  else askEdit('group', i, over);
};

list.addEventListener('pointerdown', begin);
list.addEventListener('pointermove', moveTo);
list.addEventListener('pointerup', () => end(true));
list.addEventListener('pointercancel', () => end(false));
document.addEventListener('keydown', (event) => {
  if (event.key !== 'Escape' || !drag || !drag.moving) return;
  event.preventDefault();
  end(false);
  say('Nothing was moved.');
}, true);
