// Edits go to the server one at a time, in order; the tree changes when the answer arrives.

const statusLine = view.querySelector('.nbdt-tree-status');
const PATIENCE = 15000; // milliseconds until the next edit is sent without an answer
const waiting = [];
let sent = 0;
let pending = 0; // number of the edit that is under way
let timer = 0;
let focusAfter = null; // id that has the focus once the new tree is here

const say = (text, wrong) => {
  statusLine.textContent = text;
  statusLine.classList.toggle('wrong', Boolean(wrong));
};

const sendNext = () => {
  clearTimeout(timer);
  pending = 0;
  view.classList.toggle('busy', waiting.length > 0);
  if (!waiting.length) return;
  const edit = waiting.shift();
  sent += 1;
  pending = sent;
  timer = setTimeout(() => {
    say('The server has not answered; try again.', true);
    sendNext();
  }, PATIENCE);
  trigger('tree_edit', { ...edit, seq: pending });
};

const send = (kind, nodes = [], to = null, name = null) => {
  focusAfter = kind === 'ungroup' ? tree.ids[tree.parents[tree.index.get(nodes[0])]] : nodes[0] || null;
  waiting.push({ kind, nodes, to, name });
  if (!pending) sendNext();
};

const answered = (text) => {
  const reply = parsed(text);
  if (!reply) return;
  say(reply.text, !reply.ok);
  if (reply.seq === pending) sendNext();
};

const undoButton = view.querySelector('.nbdt-tree-undo');
const redoButton = view.querySelector('.nbdt-tree-redo');

// Undo or redo, if there is anything.
const goBack = (kind) => {
  if (lit && lit[kind]) send(kind);
  else say('There is nothing to ' + kind + '.');
};
undoButton.addEventListener('click', () => goBack('undo'));
redoButton.addEventListener('click', () => goBack('redo'));

const drawButtons = () => {
  for (const [button, kind] of [[undoButton, 'undo'], [redoButton, 'redo']]) {
    const words = lit ? lit[kind] : '';
    // A disabled button would lose the focus when it is pressed once too often.
    button.setAttribute('aria-disabled', String(!words));
    button.title = words || '';
  }
};

// ---- what can be done to a node ----------------------------------------------------------------

// What each kind takes, {least, most, to, name}: the server's own table.
const kinds = parsed(props.kinds);

const canMoveInto = (i, group) => i > 0 && isGroup(group) && !isInside(group, i) && tree.parents[i] !== group;

// Two that are all of their group cannot be grouped: they are already.
const canGroup = (i, other) => {
  const around = tree.parents[other];
  if (i <= 0 || other <= 0 || i === other || isInside(other, i) || isInside(i, other)) return false;
  return around !== tree.parents[i] || tree.children[around].length > 2;
};

const canMerge = (i, other) =>
  i > 0 && other > 0 && i !== other && isGroup(i) && isGroup(other) && !isInside(other, i) && !isInside(i, other);

// Whether a kind of edit can be made of a node and another one.
const possible = { move: canMoveInto, group: canGroup, merge: canMerge };

// Whether a kind of edit is offered for a node.
const offered = {
  move: (i) => i > 0,
  group: (i) => i > 0,
  merge: (i) => isGroup(i) && i > 0,
  rename: isGroup,
  ungroup: (i) => isGroup(i) && i > 0,
};
