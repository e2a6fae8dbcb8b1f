// Reads photographs in a browser with what `nbdt export --format web` wrote: class, path and maps.

import * as ort from "onnxruntime";

const WASM = "ort-wasm-simd-threaded.wasm";
const HASH = "sha384-vjBJ1z7qrhkTyYsNqKeF6c7N+nOJSU94czEo+tvZcu8G75JparGq9kB+kTnEUNVM"; // of onnxruntime-web 1.30.0
const STRIP = 16; // ratio of length to width above which an image's ends are cut off first
const OPACITY = 0.6; // of a map's strongest place
const FOR = [200, 16, 46], AGAINST = [33, 102, 200];
const FILTERS = { // of Pillow: how far they reach, and the weight of a distance
  bilinear: [1, (x) => Math.max(0, 1 - x)],
  bicubic: [2, (x) => (x < 1 ? (1.5 * x - 2.5) * x * x + 1 : x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0)],
};

export class Reader {
  /** Open NAME.onnx and NAME.json, which are beside the page. */
  static async open(name) {
    ort.env.wasm.numThreads = 1;
    ort.env.wasm.wasmBinary = await (await load(WASM, HASH)).arrayBuffer();
    const about = await (await load(`${name}.json`)).json();
    const model = new Uint8Array(await (await load(`${name}.onnx`)).arrayBuffer());
    return new Reader(about, await ort.InferenceSession.create(model));
  }

  constructor(about, session) {
    this.session = session;
    this.classes = JSON.parse(about.classes);
    this.nodes = JSON.parse(about.hierarchy).nodes;
    this.how = JSON.parse(about.preprocessing);
    this.places = new Map(this.nodes.map((node, place) => [node.id, place]));
  }

  /** Read a photograph, a Blob. */
  async read(blob) {
    const picture = this.frame(await pixelsOf(blob));
    const shape = [1, 3, picture.height, picture.width];
    const images = new ort.Tensor("float32", this.normalised(picture), shape);
    const found = await this.session.run({ images });
    const logs = found.log_probs.data;
    const best = logs.reduce((most, value, index) => (value > logs[most] ? index : most), 0);
    const route = [];
    for (let node = this.places.get(this.classes[best]); node > 0; node = this.places.get(this.nodes[node].parent)) {
      route.unshift(node);
    }
    const step = (node, probability) => {
      const { id, name = id } = this.nodes[node];
      return { id, name: name.replaceAll("_", " "), probability };
    };
    const reading = {
      className: this.classes[best].replaceAll("_", " "),
      probability: Math.exp(logs[best]),
      path: route.map((node) => step(node, Math.exp(found.decisions.data[node]))),
      answer: found.answer && step(Number(found.answer.data[0]), found.answer_probability.data[0]),
      unknown: found.unknown && Boolean(found.unknown.data[0]),
      maps: found.maps && route.map((node) => grid(found.maps, node)),
    };
    return { ...reading, draw: (index) => drawn(picture, reading.maps?.[index]) };
  }

  /** Return the square that the network sees: the shorter side resized, the centre cropped. */
  frame(image) {
    const { size, crop_pct: share, interpolation } = this.how;
    if (!FILTERS[interpolation]) throw new Error(`no ${interpolation} interpolation here`);
    const shorter = Math.floor(size / share), least = Math.min(image.width, image.height);
    const axis = (length) => { // where the square begins and ends, in pixels of the photograph
      const cut = Math.floor((length - Math.min(length, STRIP * least)) / 2);
      const kept = length - 2 * cut, resized = Math.floor((shorter * kept) / least);
      return { cut, kept, resized, first: halfEven((resized - size) / 2), size };
    };
    const wide = resized(image, axis(image.width), interpolation);
    return transposed(resized(transposed(wide), axis(image.height), interpolation));
  }

  /** Return the input of the network: channels, rows, columns. */
  normalised({ data, width, height }) {
    const { mean, std } = this.how, area = width * height;
    return Float32Array.from({ length: 3 * area }, (_, index) => {
      const channel = Math.floor(index / area);
      return (data[4 * (index % area) + channel] / 255 - mean[channel]) / std[channel];
    });
  }
}

async function load(name, integrity) {
  const answer = await fetch(name, integrity ? { integrity } : {});
  if (!answer.ok) throw new Error(`${name}: ${answer.status} ${answer.statusText}`);
  return answer;
}

/** Return a photograph upright and on white, as ImageData: rows of red, green, blue and 255. */
async function pixelsOf(blob) {
  const bitmap = await createImageBitmap(blob, { imageOrientation: "from-image" });
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, width, height);
}

/** Resize the rows of a picture as Pillow does, and keep `size` columns from the column `first`. */
function resized({ data, width, height }, { cut, kept, resized: target, first, size }, method) {
  const [reach, weight] = FILTERS[method];
  const scale = kept / target, wide = Math.max(scale, 1);
  const columns = Array.from({ length: size }, (_, column) => {
    const centre = (first + column + 0.5) * scale;
    const from = Math.max(0, Math.floor(centre - reach * wide + 0.5));
    const to = Math.min(kept, Math.floor(centre + reach * wide + 0.5));
    const weights = Float64Array.from({ length: to - from }, (_, x) => weight(Math.abs(from + x - centre + 0.5) / wide));
    const sum = weights.reduce((total, value) => total + value, 0);
    return { begin: 4 * (cut + from), weights: weights.map((value) => value / sum) };
  });
  const result = new ImageData(size, height);
  for (let row = 0, to = 0; row < height; row += 1) {
    for (const { begin, weights } of columns) {
      let red = 0, green = 0, blue = 0, place = 4 * row * width + begin;
      for (let x = 0; x < weights.length; x += 1, place += 4) {
        red += weights[x] * data[place];
        green += weights[x] * data[place + 1];
        blue += weights[x] * data[place + 2];
      }
      result.data.set([red + 0.5, green + 0.5, blue + 0.5, 255].map(Math.floor), to);
      to += 4;
    }
  }
  return result;
}

function transposed({ data, width, height }) {
  const from = new Uint32Array(data.buffer), result = new ImageData(height, width);
  const to = new Uint32Array(result.data.buffer);
  for (let place = 0; place < from.length; place += 1) {
    to[(place % width) * height + Math.floor(place / width)] = from[place];
  }
  return result;
}

/** Round as Python does: halves to the even number. */
function halfEven(value) {
  const below = Math.floor(value);
  return value - below === 0.5 ? below + (below % 2) : Math.round(value);
}

/** Return the map of a node: rows of log-odds. */
function grid({ data, dims: [, , height, width] }, node) {
  const from = node * height * width;
  return Array.from({ length: height }, (_, row) => [...data.slice(from + row * width, from + (row + 1) * width)]);
}

/** Return a canvas with the picture, and over it a map: red argues for the step, blue against it. */
function drawn(picture, map) {
  const canvas = canvasOf(picture);
  if (map) {
    const most = Math.max(...map.flat().map(Math.abs), 1e-9);
    const colours = map.flat().map((value) => [
      ...(value > 0 ? FOR : AGAINST), (255 * OPACITY * Math.abs(value)) / most,
    ]);
    const over = canvasOf(new ImageData(new Uint8ClampedArray(colours.flat()), map[0].length, map.length));
    canvas.getContext("2d").drawImage(over, 0, 0, canvas.width, canvas.height);
  }
  return canvas;
}

function canvasOf(pixels) {
  const { width, height } = pixels;
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas;
}
