// Helpers of all components. Text is set as text: nothing that arrives is treated as HTML.

const make = (tag, className, text) => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined && text !== null) node.textContent = text;
  return node;
};

// Never 100 or 0 unless it is exactly that.
const percent = (share) => {
  const rounded = Math.round(100 * share);
  if (rounded === 100 && share < 1) return '>99 %';
  if (rounded === 0 && share > 0) return '<1 %';
  return rounded + ' %';
};

const PICTURE = /^data:image\/(png|jpeg);base64,/;

const picture = (url, alt) => {
  const image = make('img');
  if (PICTURE.test(url)) image.src = url;
  image.alt = alt;
  image.draggable = false;
  return image;
};

const reducedMotion = () => window.matchMedia('(prefers-reduced-motion: reduce)').matches;

const parsed = (text) => (text ? JSON.parse(text) : null);
