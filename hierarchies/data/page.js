"use strict";
// Names may be hostile: they reach the page only through textContent.
const data = JSON.parse(document.getElementById("data").textContent);
const { names, parents, wnids } = data;
const ROW = 26, GAP = 46, INDENT = 12, MAX_NAME = 300, MAX_OPENED = 100;
const $ = (id) => document.getElementById(id);
const view = $("view"), sheet = $("sheet"), tree = $("tree"), links = $("links");

// ---- structure: nodes are breadth-first, so a parent precedes its children ------------------
const total = names.length;
const children = Array.from({ length: total }, () => []);
const depth = new Int32Array(total), size = new Int32Array(total);
for (let node = 1; node < total; node++) {
  const parent = parents[node];
  children[parent].push(node);
  depth[node] = depth[parent] + 1;
}
for (let node = total - 1; node >= 0; node--) {
  if (!children[node].length) size[node] = 1;
  if (node) size[parents[node]] += size[node];
}
const groups = children.filter((row) => row.length).length;
const lower = names.map((name) => name.toLowerCase());
const open = new Uint8Array(total);

// The topmost nodes with at most a third of the classes get a colour each, for all nodes below them.
// Colours by level would give a tree that begins "entity, physical entity" one colour only.
const hues = new Float64Array(total).fill(-1); // -1: no colour
const most = Math.max(1, size[0] / 3);
const tops = order().filter((node) => node && size[node] <= most && size[parents[node]] > most);
const whole = tops.reduce((sum, node) => sum + Math.sqrt(size[node]), 0);
const share = (node) => (330 * Math.sqrt(size[node])) / whole;
let wheel = 30;
for (const node of tops) {
  hues[node] = wheel + share(node) / 2;
  wheel += share(node);
}
for (let node = 1; node < total; node++) if (hues[node] < 0) hues[node] = hues[parents[node]];

// ---- layout ------------------------------------------------------------------------------
const pen = document.createElement("canvas").getContext("2d");
const FONT = `13px ${getComputedStyle(document.body).fontFamily}`;
const widths = new Map(), letters = [new Map(), new Map()];

// Add the widths of single letters, each measured once: measuring every name is ten times as slow.
function measure(text, bold) {
  let sum = 0;
  const known = letters[bold ? 1 : 0];
  for (const letter of text) {
    if (!known.has(letter)) {
      pen.font = bold ? `600 ${FONT}` : FONT;
      known.set(letter, pen.measureText(letter).width);
    }
    sum += known.get(letter);
  }
  return sum;
}

function width(node) {
  if (!widths.has(node)) {
    const group = children[node].length > 0;
    let length = Math.min(MAX_NAME, measure(names[node], group));
    if (group) length += 8 + measure(size[node].toLocaleString("en"), false);
    widths.set(node, Math.ceil(length) + 34);
  }
  return widths.get(node);
}

// Visible nodes in depth-first order. A loop, since a deep tree would exhaust recursion.
function visible() {
  const shown = [], stack = [0];
  while (stack.length) {
    const node = stack.pop();
    shown.push(node);
    if (open[node]) for (let i = children[node].length - 1; i >= 0; i--) stack.push(children[node][i]);
  }
  return shown;
}

const x = new Float64Array(total), y = new Float64Array(total);
let extent = { width: 0, height: 0 };
function layout(shown) {
  const columns = [];
  let rows = 0, right = 0;
  for (const node of shown) columns[depth[node]] = Math.max(columns[depth[node]] || 0, width(node));
  for (let level = 0, left = INDENT; level < columns.length; level++) {
    const next = left + columns[level] + GAP;
    columns[level] = left;
    left = next;
  }
  for (const node of shown) {
    x[node] = columns[depth[node]];
    right = Math.max(right, x[node] + width(node));
    if (!open[node]) y[node] = INDENT + ROW * rows++;
  }
  for (let i = shown.length - 1; i >= 0; i--) {
    const node = shown[i];
    if (open[node]) y[node] = (y[children[node][0]] + y[children[node].at(-1)]) / 2;
  }
  extent = { width: right + INDENT, height: 2 * INDENT + ROW * rows };
}

// ---- drawing -----------------------------------------------------------------------------
const elements = new Map();
let current = 0, scale = 1, hits = [], at = -1, hitSet = new Set();

function element(node) {
  if (elements.has(node)) return elements.get(node);
  const made = document.createElement("div"), mark = document.createElement("span"), name = document.createElement("span");
  const group = children[node].length > 0;
  made.className = group ? "node group-node" : "node leaf";
  made.dataset.node = node;
  made.tabIndex = -1;
  made.style.width = `${width(node)}px`;
  made.setAttribute("role", "treeitem");
  made.setAttribute("aria-level", depth[node] + 1);
  const siblings = node ? children[parents[node]] : [0];
  made.setAttribute("aria-setsize", siblings.length);
  made.setAttribute("aria-posinset", node - siblings[0] + 1);
  colour(made, node);
  mark.className = "mark";
  name.className = "name";
  name.dir = "auto";
  name.textContent = names[node];
  made.append(mark, name);
  if (group) {
    const count = document.createElement("span");
    count.className = "count";
    count.textContent = size[node].toLocaleString("en");
    made.append(count);
  }
  elements.set(node, made);
  return made;
}

function colour(made, node) {
  made.style.setProperty("--hue", Math.max(0, Math.round(hues[node]) % 360));
  made.style.setProperty("--vivid", hues[node] < 0 ? "8%" : "62%");
}

function draw() {
  const shown = visible();
  layout(shown);
  const strokes = new Map();
  for (const node of shown) {
    const made = element(node);
    made.style.transform = `translate(${x[node]}px, ${y[node]}px)`;
    if (children[node].length) made.setAttribute("aria-expanded", open[node] === 1);
    made.classList.toggle("found", hitSet.has(node));
    made.classList.toggle("now", hits[at] === node);
    if (node) addLink(strokes, node);
  }
  for (let up = parents[current]; up >= 0; up = parents[up]) if (!open[up]) current = up;
  place(shown);
  const paths = [...strokes].map(([, stroke]) => {
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("d", stroke.d.join(""));
    colour(path, stroke.node);
    return path;
  });
  links.replaceChildren(...paths);
  links.setAttribute("width", extent.width);
  links.setAttribute("height", extent.height);
  mark(current);
  resize();
}

// Leave elements that stay untouched, so that the browser does not lay them out again.
function place(shown) {
  const wanted = new Set(shown);
  for (const made of [...tree.children]) if (made !== links && !wanted.has(Number(made.dataset.node))) made.remove();
  let before = links;
  for (const node of shown) {
    const made = elements.get(node);
    if (before.nextSibling !== made) before.after(made);
    before = made;
  }
}

function addLink(strokes, node) {
  const parent = parents[node], from = x[parent] + width(parent) - 4, middle = x[node] - GAP / 2;
  if (!strokes.has(hues[node])) strokes.set(hues[node], { node, d: [] });
  strokes.get(hues[node]).d.push(
    `M${from} ${y[parent] + 11}C${middle} ${y[parent] + 11} ${middle} ${y[node] + 11} ${x[node] + 5} ${y[node] + 11}`);
}

function resize() {
  tree.style.transform = `scale(${scale})`;
  sheet.style.width = `${extent.width * scale}px`;
  sheet.style.height = `${extent.height * scale}px`;
  $("level").textContent = `${Math.round(scale * 100)} %`;
}

// ---- the current node --------------------------------------------------------------------
function mark(node) {
  for (const made of tree.querySelectorAll('[tabindex="0"]')) {
    made.tabIndex = -1;
    made.classList.remove("current");
    made.removeAttribute("aria-selected");
  }
  current = node;
  const made = elements.get(node);
  made.tabIndex = 0;
  made.setAttribute("aria-selected", "true");
}

function go(node, focus = true) {
  mark(node);
  about(node);
  elements.get(node).classList.add("current");
  if (focus) elements.get(node).focus({ preventScroll: true });
  reveal(node);
}

function reveal(node) {
  const left = x[node] * scale, top = y[node] * scale, wide = width(node) * scale, pad = 40;
  if (left < view.scrollLeft + pad || left + wide > view.scrollLeft + view.clientWidth - pad)
    view.scrollLeft = left - Math.max(pad, (view.clientWidth - wide) / 2);
  if (top < view.scrollTop + pad || top + ROW * scale > view.scrollTop + view.clientHeight - pad)
    view.scrollTop = top - view.clientHeight / 2;
}

function about(node) {
  const path = [];
  for (let up = parents[node]; up >= 0; up = parents[up]) path.push(names[up]);
  const name = document.createElement("b"), rest = [];
  name.textContent = names[node];
  if (children[node].length) rest.push(`${children[node].length.toLocaleString("en")} children`, `${size[node].toLocaleString("en")} classes`);
  if (wnids[node]) rest.push(`WordNet ${wnids[node]}`);
  const above = path.reverse().slice(-12);
  const cut = path.length > above.length ? "… › " : "";
  $("about").replaceChildren(cut + above.map((word) => word + " › ").join(""), name, rest.length ? ` · ${rest.join(" · ")}` : "");
}

function toggle(node, to = !open[node]) {
  if (!children[node].length) return;
  const before = { x: x[node], y: y[node] };
  open[node] = to ? 1 : 0;
  draw();
  // Keep what was clicked under the pointer.
  view.scrollTop += (y[node] - before.y) * scale;
  view.scrollLeft += (x[node] - before.x) * scale;
}

// ---- opening and closing -----------------------------------------------------------------
function openTo(level) {
  for (let node = 0; node < total; node++) open[node] = children[node].length && depth[node] < level ? 1 : 0;
}

function shownDepth() {
  let deepest = 0;
  for (let node = 0; node < total; node++) if (open[node]) deepest = Math.max(deepest, depth[node] + 1);
  return deepest;
}

function start() {
  // Open groups level by level while the rows fit on a screen.
  open[0] = 1;
  const screen = Math.max(8, Math.floor((view.clientHeight - 2 * INDENT) / ROW));
  let rows = children[0].length;
  for (let node = 1; node < total; node++) {
    const more = children[node].length - 1;
    if (more <= 0 || !open[parents[node]] || rows + more > screen) continue;
    open[node] = 1;
    rows += more;
  }
}

function home() {
  view.scrollLeft = 0;
  view.scrollTop = Math.max(0, (y[0] + ROW / 2) * scale - view.clientHeight / 2);
}

// ---- zoom --------------------------------------------------------------------------------
function zoom(to, clientX, clientY) {
  const box = view.getBoundingClientRect();
  const dx = (clientX ?? box.left + box.width / 2) - box.left, dy = (clientY ?? box.top + box.height / 2) - box.top;
  const px = (view.scrollLeft + dx) / scale, py = (view.scrollTop + dy) / scale;
  scale = Math.min(3, Math.max(0.05, to));
  resize();
  view.scrollLeft = px * scale - dx;
  view.scrollTop = py * scale - dy;
}

function fit() {
  const wide = view.clientWidth / extent.width, both = Math.min(wide, view.clientHeight / extent.height);
  zoom(Math.min(1.5, both < 0.3 ? wide : both)); // fit a very tall tree by width, so that names stay legible
  home();
}

// ---- search ------------------------------------------------------------------------------
function search() {
  const query = $("search").value.trim().toLowerCase();
  hits = [];
  if (query) for (const node of order()) if (lower[node].includes(query) || wnids[node] === query) hits.push(node);
  // Exact matches come first, then names that begin with the query: "cat", "catamaran", "muscat".
  const rank = (node) => (lower[node] === query ? 0 : lower[node].startsWith(query) ? 1 : 2);
  hits.sort((a, b) => rank(a) - rank(b));
  hitSet = new Set(hits);
  at = -1;
  if (hits.length <= MAX_OPENED) hits.forEach(openAbove);
  if (hits.length) return step(1);
  $("hits").textContent = query ? "no match" : "";
  draw();
}

function order() {
  const all = [], stack = [0];
  while (stack.length) {
    const node = stack.pop();
    all.push(node);
    for (let i = children[node].length - 1; i >= 0; i--) stack.push(children[node][i]);
  }
  return all;
}

function openAbove(node) {
  for (let up = parents[node]; up >= 0; up = parents[up]) open[up] = 1;
}

function step(by) {
  if (!hits.length) return;
  at = (at + by + hits.length) % hits.length;
  openAbove(hits[at]);
  draw();
  go(hits[at], false);
  $("hits").textContent = `${(at + 1).toLocaleString("en")} of ${hits.length.toLocaleString("en")}`;
}

// ---- events ------------------------------------------------------------------------------
const keys = {
  ArrowDown: (node, shown, place) => shown[place + 1],
  ArrowUp: (node, shown, place) => shown[place - 1],
  Home: () => 0,
  End: (node, shown) => shown.at(-1),
  ArrowRight: (node) => (open[node] ? children[node][0] : void toggle(node, true)),
  ArrowLeft: (node) => (open[node] ? void toggle(node, false) : parents[node] >= 0 ? parents[node] : undefined),
  Enter: (node) => void toggle(node),
  " ": (node) => void toggle(node),
};

let typed = "", typedAt = 0;
function typeAhead(key) {
  typed = Date.now() - typedAt < 800 ? typed + key.toLowerCase() : key.toLowerCase();
  typedAt = Date.now();
  const shown = visible(), from = shown.indexOf(current) + (typed.length > 1 ? 0 : 1);
  for (let i = 0; i < shown.length; i++) {
    const node = shown[(from + i) % shown.length];
    if (lower[node].startsWith(typed)) return go(node);
  }
}

tree.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key in keys) {
    event.preventDefault();
    const shown = visible(), next = keys[event.key](current, shown, shown.indexOf(current));
    go(next ?? current);
  } else if (event.key === "*") {
    for (const sibling of current ? children[parents[current]] : [0]) open[sibling] = children[sibling].length ? 1 : 0;
    draw();
    go(current);
  } else if (event.key.length === 1 && event.key !== "/") typeAhead(event.key);
});

let panned = false;
tree.addEventListener("click", (event) => {
  const made = event.target.closest(".node");
  if (!made || panned) return;
  const node = Number(made.dataset.node);
  toggle(node);
  mark(node);
  about(node);
  made.focus({ preventScroll: true });
});
tree.addEventListener("focusin", (event) => {
  const made = event.target.closest(".node");
  if (made) about(Number(made.dataset.node));
});
tree.addEventListener("mouseover", (event) => {
  const made = event.target.closest(".node");
  if (made) about(Number(made.dataset.node));
});

view.addEventListener("pointerdown", (event) => {
  panned = false;
  if (event.button || event.pointerType === "touch" || event.target.closest(".node")) return;
  const from = { x: event.clientX, y: event.clientY, left: view.scrollLeft, top: view.scrollTop };
  const move = (moved) => {
    panned = true;
    view.classList.add("pan");
    view.scrollLeft = from.left - (moved.clientX - from.x);
    view.scrollTop = from.top - (moved.clientY - from.y);
  };
  const end = () => {
    view.classList.remove("pan");
    window.removeEventListener("pointermove", move);
  };
  window.addEventListener("pointermove", move);
  window.addEventListener("pointerup", end, { once: true });
});
view.addEventListener("wheel", (event) => {
  if (!event.ctrlKey && !event.metaKey) return;
  event.preventDefault();
  zoom(scale * Math.exp(-event.deltaY / 300), event.clientX, event.clientY);
}, { passive: false });

document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.target === $("search") || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  $("search").focus();
  $("search").select();
});
$("search").addEventListener("input", search);
$("search").addEventListener("keydown", (event) => {
  if (event.key === "Enter") step(event.shiftKey ? -1 : 1);
  if (event.key === "Escape") {
    $("search").value = "";
    search();
  }
  if (event.key === "ArrowDown") {
    event.preventDefault();
    go(current);
  }
});
$("previous").addEventListener("click", () => step(-1));
$("next").addEventListener("click", () => step(1));
$("less").addEventListener("click", () => { openTo(1); draw(); home(); });
$("more").addEventListener("click", () => { openTo(shownDepthWhole() + 1); draw(); home(); });
$("all").addEventListener("click", () => { openTo(total); draw(); home(); });
$("smaller").addEventListener("click", () => zoom(scale / 1.25));
$("larger").addEventListener("click", () => zoom(scale * 1.25));
$("level").addEventListener("click", () => zoom(1));
$("fit").addEventListener("click", fit);

// The number of levels whose groups are all open; "One level more" opens the next level.
function shownDepthWhole() {
  let whole = shownDepth();
  for (let node = 0; node < total; node++)
    if (children[node].length && !open[node]) whole = Math.min(whole, depth[node]);
  return whole;
}

document.title = data.title || "Class hierarchy";
$("title").textContent = document.title;
const leaves = total - groups;
$("facts").textContent = `${leaves.toLocaleString("en")} classes · ${groups.toLocaleString("en")} groups`;
start();
draw();
home();
