// Signed maps, painted here from their numbers: the server sends no picture, and the opacity slider
// and the raw-resolution toggle need no server. Red supports a step, blue opposes it.

const FOR = [214, 40, 40];
const AGAINST = [33, 102, 200];
const SMOOTH = 96; // pixels of a side of the smoothed map

// Catmull-Rom: passes through the values, as the bicubic enlargement of the Python code does.
const cubic = (t) => [
  ((2 - t) * t - 1) * t / 2,
  ((3 * t - 5) * t * t + 2) / 2,
  ((4 - 3 * t) * t + 1) * t / 2,
  (t - 1) * t * t / 2,
];

const resampled = (read, from, to) => Array.from({ length: to }, (_, i) => {
  const at = ((i + 0.5) * from) / to - 0.5;
  const start = Math.floor(at);
  const clamp = (k) => Math.min(from - 1, Math.max(0, k));
  return cubic(at - start).reduce((sum, w, k) => sum + w * read(clamp(start - 1 + k)), 0);
});

// (height × width) values to SMOOTH × SMOOTH, rows first.
const smoothed = (map) => {
  const rows = Array.from({ length: map.height }, (_, y) =>
    resampled((x) => map.values[y * map.width + x], map.width, SMOOTH));
  const columns = Array.from({ length: SMOOTH }, (_, x) =>
    resampled((y) => rows[y][x], map.height, SMOOTH));
  return Array.from({ length: SMOOTH * SMOOTH }, (_, i) => columns[i % SMOOTH][Math.floor(i / SMOOTH)]);
};

const painted = (values, width, height, scale, className) => {
  const canvas = make('canvas', className);
  canvas.width = width;
  canvas.height = height;
  const data = new ImageData(width, height);
  values.forEach((value, i) => {
    const share = Math.max(-1, Math.min(1, value / Math.max(scale, 1e-12)));
    data.data.set([...(share > 0 ? FOR : AGAINST), Math.round(235 * Math.abs(share))], 4 * i);
  });
  canvas.getContext('2d').putImageData(data, 0, 0);
  return canvas;
};

// The photograph under its maps, as layers. An attribute and a custom property of the document set
// which map shows, and how strongly.
const layered = (photo, map, scale, label) => {
  const frame = make('div', 'nbdt-layers');
  frame.setAttribute('role', 'img');
  frame.setAttribute('aria-label', label);
  const ground = picture(photo, '');
  frame.append(
    ground,
    painted(smoothed(map), SMOOTH, SMOOTH, scale, 'nbdt-smooth'),
    painted(map.values, map.width, map.height, scale, 'nbdt-raw'),
  );
  return frame;
};
