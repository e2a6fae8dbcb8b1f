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
      return (data[3 * (index % area) + channel] / 255 - mean[channel]) / std[channel];
    });
  }
}

async function load(name, integrity) {
  const answer = await fetch(name, integrity ? { integrity } : {});
  if (!answer.ok) throw new Error(`${name}: ${answer.status} ${answer.statusText}`);
  return answer;
}

/** Return a photograph upright, on white, as rows of red, green and blue. */
async function pixelsOf(blob) {
  const bitmap = await createImageBitmap(blob, { imageOrientation: "from-image" });
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
  return { width, height, data: data.filter((_, index) => index % 4 !== 3) };
}

/** Resize the rows of a picture as Pillow does, and keep `size` columns from the column `first`. */
function resized({ data, width, height }, { cut, kept, resized: target, first, size }, method) {
  const [reach, weight] = FILTERS[method];
  const scale = kept / target, wide = Math.max(scale, 1);
  const result = new Uint8ClampedArray(3 * size * height);
  for (let column = 0; column < size; column += 1) {
    const centre = (first + column + 0.5) * scale;
    const from = Math.max(0, Math.floor(centre - reach * wide + 0.5));
    const to = Math.min(kept, Math.floor(centre + reach * wide + 0.5));
    const weights = Array.from({ length: to - from }, (_, x) => weight(Math.abs(from + x - centre + 0.5) / wide));
    const sum = weights.reduce((total, value) => total + value, 0);
    for (let row = 0; row < height; row += 1) {
      for (let channel = 0; channel < 3; channel += 1) {
        let value = 0, place = 3 * (row * width + cut + from) + channel;
        for (let x = 0; x < weights.length; x += 1, place += 3) value += weights[x] * data[place];
        result[3 * (row * size + column) + channel] = Math.floor(value / sum + 0.5);
      }
    }
  }
  return { data: result, width: size, height };
}

function transposed({ data, width, height }) {
  const result = new Uint8ClampedArray(data.length);
  for (let row = 0; row < height; row += 1) {
    for (let column = 0; column < width; column += 1) {
      const from = 3 * (row * width + column), to = 3 * (column * height + row);
      for (let channel = 0; channel < 3; channel += 1) result[to + channel] = data[from + channel];
    }
  }
  return { data: result, width: height, height: width };
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
function drawn({ data, width, height }, map) {
  const colours = Array.from({ length: width * height }, (_, place) => [...data.slice(3 * place, 3 * place + 3), 255]);
  const canvas = canvasOf(colours.flat(), width, height);
  if (map) {
    const most = Math.max(...map.flat().map(Math.abs), 1e-9);
    const over = map.flat().map((value) => [
      ...(value > 0 ? FOR : AGAINST), (255 * OPACITY * Math.abs(value)) / most,
    ]);
    canvas.getContext("2d").drawImage(canvasOf(over.flat(), map[0].length, map.length), 0, 0, width, height);
  }
  return canvas;
}

function canvasOf(values, width, height) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  canvas.getContext("2d").putImageData(new ImageData(new Uint8ClampedArray(values), width, height), 0, 0);
  return canvas;
}
