"use strict";
const $ = (id) => document.getElementById(id);
const about = JSON.parse($("about").textContent);
const [low, high] = about.range, Z = about.latents;
const size = (shape) => shape.reduce((a, b) => a * b, 1);
const COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#8a7a00", "#7b5cd6", "#8c564b", "#6b7680"];
const colour = (label) => label === undefined ? COLOURS[0] : label < COLOURS.length ? COLOURS[label] : `hsl(${(label * 137.5) % 360} 60% 50%)`;
const theme = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const nameOf = (label) => about.classes[label] ?? String(label);

async function unpacked(name) {
  const text = globalThis.parts?.[name] ?? $(`part-${name}`).textContent;
  const letters = atob(text), packed = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) packed[i] = letters.charCodeAt(i);
  return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}
const [codes, points, draws] = await Promise.all(["codes", "points", "draws"].map(async (name) => new Float32Array(await unpacked(name))));
const rows = new Uint8Array(await unpacked("rows")), smallSize = size(about.small);
const codeOf = (row) => codes.slice(row * Z, row * Z + Z);
const smallOf = (row) => Float32Array.from(rows.subarray(row * smallSize, (row + 1) * smallSize), (value) => value / 255);

// What runs the model.
let encoder = null, decoder = null;
async function run(session, name, values, shape, count, labels) {
  const feeds = { [name]: new ort.Tensor("float32", values, [count, ...shape]) };
  if (about.conditional) feeds.y = new ort.Tensor("int64", BigInt64Array.from(labels, BigInt), [count]);
  const found = await session.run(feeds);
  return found[session.outputNames[0]].data;
}
let queue = Promise.resolve();
const inTurn = (work) => (queue = queue.then(work, work));
const decode = (z, count = 1, y = state.y) => inTurn(() => run(decoder, "z", z, [Z], count, Array(count).fill(y)));
const encode = (x, y = state.y) => inTurn(() => run(encoder, "x", x, about.shape, 1, [y]));

// What is looked at: a latent, the label that the model is told, and where both are from.
const state = { z: Float32Array.from(about.centre), y: 0, row: null, cursor: [0, 0], from: null, to: null, decoded: null, x: null, next: 0, hidden: new Set() };
let latest = 0;
async function look(z, said, { row = null, original = null } = {}) {
  state.z = Float32Array.from(z);
  state.row = row;
  const at = placed(z);
  if (at) state.cursor = at; else if (row !== null) state.cursor = [points[2 * row], points[2 * row + 1]];
  $("status").textContent = said;
  $("given").hidden = !original;
  if (original) draw($("original"), original.values, original.shape, 224);
  for (const slider of sliders) slider.set(state.z[slider.number]);
  paint();
  if (!decoder) return;
  const mine = ++latest;
  await inTurn(() => {}); // of many wishes at once the last one is decoded
  if (mine !== latest) return;
  const decoded = await decode(state.z);
  if (mine !== latest) return;
  state.decoded = decoded;
  draw($("decoded"), unit(decoded), about.shape, 224);
}
const unit = (values) => Float32Array.from(values, (value) => Math.min(1, Math.max(0, (value - low) / Math.max(high - low, 1e-12))));

// Rows as pictures: images as they are, volumes by their middle slice, signals and vectors as lines.
function draw(canvas, values, shape, width) {
  const [channels, ...sides] = shape.length === 4 ? [shape[0], shape[2], shape[3]] : shape;
  if (shape.length === 4) {
    const plane = sides[0] * sides[1], middle = shape[1] >> 1;
    const slices = Array.from({ length: channels }, (_, c) => values.subarray((c * shape[1] + middle) * plane, (c * shape[1] + middle + 1) * plane));
    return draw(canvas, Float32Array.from(slices.flatMap((slice) => [...slice])), [channels, ...sides], width);
  }
  const context = canvas.getContext("2d");
  if (shape.length === 3) {
    const [height, across] = sides, plane = height * across;
    canvas.width = across; canvas.height = height;
    canvas.style.width = `${width}px`; canvas.style.height = `${Math.round((width * height) / across)}px`;
    const picture = context.createImageData(across, height);
    for (let i = 0; i < plane; i++) {
      let mean = 0;
      for (let c = 0; c < channels; c++) mean += values[c * plane + i] / channels;
      for (let c = 0; c < 3; c++) picture.data[4 * i + c] = 255 * (channels === 3 ? values[c * plane + i] : mean) + 0.5;
      picture.data[4 * i + 3] = 255;
    }
    return context.putImageData(picture, 0, 0);
  }
  const lines = shape.length === 1 ? 1 : channels, steps = values.length / lines, height = Math.round(width / 2);
  canvas.width = 2 * width; canvas.height = 2 * height;
  canvas.style.width = `${width}px`; canvas.style.height = `${height}px`;
  context.fillStyle = theme("--band"); context.fillRect(0, 0, canvas.width, canvas.height);
  context.lineWidth = 2;
  for (let c = 0; c < lines; c++) {
    context.strokeStyle = colour(c); context.beginPath();
    for (let i = 0; i < steps; i++) {
      const x = ((i + 0.5) / steps) * canvas.width, y = (1 - values[c * steps + i]) * (canvas.height - 8) + 4;
      if (i) context.lineTo(x, y); else context.moveTo(x, y);
      if (steps <= 48) context.fillStyle = colour(c), context.fillRect(x - 3, y - 3, 6, 6);
    }
    context.stroke();
  }
}

// The map of the codes.
const { centre, directions } = about.plane;
const plane = directions !== null && about.space !== "codes"; // any of its points is a latent
const scatter = $("scatter"), context = scatter.getContext("2d");
const bounds = [0, 1].map((axis) => {
  let least = Infinity, most = -Infinity;
  for (let i = axis; i < points.length; i += 2) { least = Math.min(least, points[i]); most = Math.max(most, points[i]); }
  return [least, most];
});
let scale = 1, middle = [0, 0], box = [1, 1];
function fit() {
  const ratio = devicePixelRatio || 1, { width, height } = scatter.getBoundingClientRect();
  scatter.width = Math.round(width * ratio); scatter.height = Math.round(height * ratio);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  box = [width, height];
  middle = bounds.map(([least, most]) => (least + most) / 2);
  scale = Math.min(...bounds.map(([least, most], axis) => (0.9 * box[axis]) / Math.max(most - least, 1e-9)));
  paint();
}
const onScreen = ([x, y]) => [box[0] / 2 + (x - middle[0]) * scale, box[1] / 2 - (y - middle[1]) * scale];
const onPlane = ([x, y]) => [middle[0] + (x - box[0] / 2) / scale, middle[1] - (y - box[1] / 2) / scale];
function placed(z) {
  if (directions === null) return null;
  return directions.map((direction) => direction.reduce((sum, d, j) => sum + d * (z[j] - centre[j]), 0));
}
function latentAt([u, v]) {
  const z = Float32Array.from(centre, (c, j) => c + u * directions[0][j] + v * directions[1][j]);
  return about.space === "the unit sphere" ? normalized(z) : z;
}
const norm = (z) => Math.hypot(...z);
const normalized = (z) => { const length = norm(z) || 1; return z.map((value) => value / length); };
function paint() {
  context.clearRect(0, 0, ...box);
  context.fillStyle = theme("--quiet"); context.font = "12px system-ui, sans-serif";
  context.textAlign = "center"; context.fillText(about.plane.axes[0], box[0] / 2, box[1] - 6);
  context.save(); context.translate(12, box[1] / 2); context.rotate(-Math.PI / 2); context.fillText(about.plane.axes[1], 0, 0); context.restore();
  const radius = about.rows > 3000 ? 2 : 3;
  context.globalAlpha = 0.7;
  for (let row = 0; row < about.rows; row++) {
    if (state.hidden.has(about.labels[row])) continue;
    const [x, y] = onScreen([points[2 * row], points[2 * row + 1]]);
    context.fillStyle = colour(about.labels[row]);
    context.beginPath(); context.arc(x, y, radius, 0, 7); context.fill();
  }
  context.globalAlpha = 1;
  const ends = ["from", "to"].filter((end) => state[end] && placed(state[end])).map((end) => [end, onScreen(placed(state[end]))]);
  if (ends.length === 2) {
    context.strokeStyle = theme("--mark"); context.setLineDash([4, 4]); context.beginPath();
    for (let k = 0; k <= 40; k++) context.lineTo(...onScreen(placed(between(k / 40))));
    context.stroke(); context.setLineDash([]);
  }
  for (const [end, [x, y]] of ends) { context.fillStyle = theme("--mark"); context.font = "bold 13px system-ui, sans-serif"; context.fillText(end === "from" ? "A" : "B", x, y - 15); }
  const [x, y] = onScreen(state.cursor);
  context.strokeStyle = theme("--page"); context.lineWidth = 5; cross(x, y);
  context.strokeStyle = theme("--mark"); context.lineWidth = 2; cross(x, y);
  context.lineWidth = 1;
}
function cross(x, y) {
  context.beginPath(); context.arc(x, y, 7, 0, 7);
  for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) { context.moveTo(x + 7 * dx, y + 7 * dy); context.lineTo(x + 12 * dx, y + 12 * dy); }
  context.stroke();
}
function nearest([x, y], accept = () => true) {
  let best = null, least = Infinity;
  for (let row = 0; row < about.rows; row++) {
    if (state.hidden.has(about.labels[row])) continue;
    const [a, b] = onScreen([points[2 * row], points[2 * row + 1]]), distance = Math.hypot(a - x, b - y);
    if (distance < least && accept(a - x, b - y)) { least = distance; best = row; }
  }
  return { row: best, distance: least };
}
const pointer = (event) => { const { left, top } = scatter.getBoundingClientRect(); return [event.clientX - left, event.clientY - top]; };
function pick(row) {
  if (row === null) return undefined;
  const label = about.labels[row];
  if (about.conditional) tell(label);
  return look(codeOf(row), `${about.noun} ${row}${label === undefined ? "" : `, label ${nameOf(label)}`}`, { row, original: { values: smallOf(row), shape: about.small } });
}
const visit = (at) => look(latentAt(at), `point ${at.map((value) => value.toFixed(2)).join(", ")} of the plane`);
scatter.addEventListener("click", (event) => {
  const { row, distance } = nearest(pointer(event));
  return row !== null && (distance < 7 || !plane) ? pick(row) : plane && visit(onPlane(pointer(event)));
});
scatter.addEventListener("pointermove", (event) => {
  const [x, y] = pointer(event), { row, distance } = nearest([x, y]);
  $("tip").hidden = !(distance < 9);
  if (row === null || $("tip").hidden) return;
  const label = about.labels[row];
  draw($("tip").querySelector("canvas"), smallOf(row), about.small, 72);
  $("tip").querySelector("span").textContent = `${row}${label === undefined ? "" : `: ${nameOf(label)}`}`;
  $("tip").style.left = `${x > box[0] - 120 ? x - 100 : x + 14}px`; $("tip").style.top = `${Math.min(y + 14, box[1] - 110)}px`;
});
scatter.addEventListener("pointerleave", () => { $("tip").hidden = true; });
scatter.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  const key = event.key.toLowerCase();
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (step) {
    const [x, y] = onScreen(state.cursor);
    if (plane && !event.shiftKey) visit(onPlane([x + 10 * step[0], y + 10 * step[1]]));
    else pick(nearest([x, y], (dx, dy) => { const along = dx * step[0] + dy * step[1]; return along > 0.5 && along >= Math.abs(dx * step[1] + dy * step[0]); }).row);
  } else if (event.key === "Enter") pick(nearest(onScreen(state.cursor)).row);
  else if (key === "p") $("draw").click();
  else if (key === "a" && $("from")) $("from").click();
  else if (key === "b" && $("to")) $("to").click();
  else return;
  event.preventDefault();
});
for (const label of [...new Set(about.labels)].sort((a, b) => a - b)) {
  const button = document.createElement("button"), text = document.createElement("span");
  button.type = "button"; button.ariaPressed = "true"; button.style.color = colour(label);
  text.textContent = nameOf(label);
  button.append(text);
  button.addEventListener("click", () => {
    const shown = state.hidden.delete(label) || !state.hidden.add(label);
    button.ariaPressed = String(shown);
    paint();
  });
  $("legend").append(button);
}

// A slider for each dimension.
const sliders = [];
for (const { number, weight, low: least, high: most } of about.dimensions) {
  const line = document.createElement("label"), name = document.createElement("span"), input = document.createElement("input");
  const output = document.createElement("output"), share = document.createElement("span");
  name.textContent = `z${number}`;
  Object.assign(input, { type: "range", min: least, max: most, step: (most - least) / 400 || "any", ariaLabel: `z${number}` });
  share.className = "weight"; share.textContent = weight.toFixed(2); share.title = about.by;
  input.addEventListener("input", () => {
    const z = Float32Array.from(state.z);
    z[number] = Number(input.value);
    look(z, `z${number} at ${z[number].toFixed(2)}`);
  });
  line.append(name, input, output, share);
  $("sliders").append(line);
  sliders.push({ number, set: (value) => {
    if (document.activeElement !== input || Math.abs(Number(input.value) - value) > (most - least) / 300) input.value = value;
    output.textContent = value.toFixed(2);
  } });
}
$("reset")?.addEventListener("click", () => look(about.centre, "all dimensions at the mean"));

// Draws from the prior, the label, a walk.
$("draw").addEventListener("click", () => {
  if (!about.draws) return;
  const draw = state.next++ % about.draws;
  look(draws.slice(draw * Z, draw * Z + Z), `draw ${draw + 1} ${about.source}`);
});
function tell(label) { state.y = label; $("label").value = String(label); }
$("label")?.addEventListener("change", () => { state.y = Number($("label").value); look(state.z, `label ${nameOf(state.y)}`); strip(); });
function between(t) {
  const [a, b] = [state.from, state.to], onArc = about.space === "the unit sphere" || $("arc").checked;
  const straight = a.map((value, j) => (1 - t) * value + t * b[j]);
  const lengths = [norm(a), norm(b)];
  if (!onArc || !lengths[0] || !lengths[1]) return straight;
  const [u, v] = [normalized(a), normalized(b)];
  const angle = 2 * Math.atan2(norm(u.map((value, j) => value - v[j])), norm(u.map((value, j) => value + v[j])));
  if (Math.sin(angle) <= 1e-5) return straight;
  const length = (1 - t) * lengths[0] + t * lengths[1];
  return u.map((value, j) => (length * (Math.sin((1 - t) * angle) * value + Math.sin(t * angle) * v[j])) / Math.sin(angle));
}
async function strip() {
  const canvas = $("strip");
  if (!canvas || !state.from || !state.to || !decoder) return;
  const steps = 9, z = new Float32Array(steps * Z), tile = document.createElement("canvas");
  for (let k = 0; k < steps; k++) z.set(between(k / (steps - 1)), k * Z);
  const values = unit(await decode(z, steps)), one = size(about.shape);
  for (let k = 0; k < steps; k++) {
    draw(tile, values.slice(k * one, (k + 1) * one), about.shape, 80);
    if (!k) { canvas.width = (tile.width + 1) * steps - 1; canvas.height = tile.height; canvas.hidden = false; }
    canvas.getContext("2d").drawImage(tile, k * (tile.width + 1), 0);
  }
}
function end(which) {
  state[which] = Float32Array.from(state.z);
  $("status").textContent = `${which === "from" ? "A" : "B"} is here`;
  const both = Boolean(state.from && state.to);
  $("t").disabled = $("play").disabled = !both;
  paint();
  if (both) strip();
}
const walk = () => look(between(Number($("t").value)), `${Math.round(100 * $("t").value)}% of the way from A to B`);
if ($("walk")) {
  $("from").addEventListener("click", () => end("from"));
  $("to").addEventListener("click", () => end("to"));
  $("t").addEventListener("input", walk);
  $("arc")?.addEventListener("change", () => { paint(); if (state.to && state.from) { walk(); strip(); } });
  let playing = 0;
  $("play").addEventListener("click", () => {
    const started = performance.now();
    cancelAnimationFrame(playing);
    const frame = (now) => {
      const t = Math.min(1, Math.max(0, (now - started) / 3000));
      $("t").value = t;
      walk();
      if (t < 1) playing = requestAnimationFrame(frame);
    };
    playing = requestAnimationFrame(frame);
  });
}

// An image of one's own: on white, cut to its middle, scaled as torch does (bilinear, with antialiasing).
function weights(from, to) {
  const ratio = from / to, reach = Math.max(1, ratio);
  return Array.from({ length: to }, (_, i) => {
    const at = (i + 0.5) * ratio, first = Math.max(0, Math.floor(at - reach + 0.5)), last = Math.min(from, Math.floor(at + reach + 0.5));
    const parts = Array.from({ length: last - first }, (_, k) => Math.max(0, 1 - Math.abs((first + k + 0.5 - at) / reach)));
    const sum = parts.reduce((a, b) => a + b, 0);
    return { first, parts: parts.map((part) => part / sum) };
  });
}
function scaled(values, [rows, columns], [height, width]) {
  const across = new Float32Array(rows * width), result = new Float32Array(height * width);
  weights(columns, width).forEach(({ first, parts }, x) => {
    for (let y = 0; y < rows; y++) across[y * width + x] = parts.reduce((sum, part, k) => sum + part * values[y * columns + first + k], 0);
  });
  weights(rows, height).forEach(({ first, parts }, y) => {
    for (let x = 0; x < width; x++) result[y * width + x] = parts.reduce((sum, part, k) => sum + part * across[(first + k) * width + x], 0);
  });
  return result;
}
let files = 0;
async function own(file) {
  const mine = ++files; // of files that are given in quick succession the last one counts
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none", premultiplyAlpha: "none" });
  } catch {
    $("status").textContent = `${file.name} is no image that this browser reads`;
    return;
  }
  if (mine !== files) return;
  const [channels, height, width] = about.shape;
  const keptRows = Math.max(1, Math.min(bitmap.height, Math.round((bitmap.width * height) / width)));
  const keptColumns = Math.max(1, Math.min(bitmap.width, Math.round((bitmap.height * width) / height)));
  const canvas = new OffscreenCanvas(keptColumns, keptRows), on = canvas.getContext("2d", { willReadFrequently: true });
  on.fillStyle = "#fff"; on.fillRect(0, 0, keptColumns, keptRows);
  on.drawImage(bitmap, -Math.floor((bitmap.width - keptColumns) / 2), -Math.floor((bitmap.height - keptRows) / 2));
  const { data } = on.getImageData(0, 0, keptColumns, keptRows);
  const planes = [0, 1, 2].map((c) => Float32Array.from({ length: keptRows * keptColumns }, (_, i) => data[4 * i + c] / 255));
  const wanted = channels === 3 ? planes : [planes[0].map((red, i) => 0.299 * red + 0.587 * planes[1][i] + 0.114 * planes[2][i])];
  const x = new Float32Array(size(about.shape)), same = keptRows === height && keptColumns === width;
  wanted.forEach((plane, c) => x.set(same ? plane : scaled(plane, [keptRows, keptColumns], [height, width]), c * height * width));
  state.x = x.map((value) => Math.min(1, Math.max(0, $("invert").checked ? 1 - value : value))).map((value) => about.binary ? Number(value >= 0.5) : value);
  await again(file.name);
}
async function again(name) {
  const x = state.x, z = await encode(x);
  if (x !== state.x) return;
  await look(z, `${name}, encoded`, { original: { values: state.x, shape: about.shape } });
}
if (about.pixels) {
  let file = null;
  const take = (found) => { if (found && encoder) { file = found; own(file); } };
  $("file").addEventListener("change", () => take($("file").files[0]));
  $("invert").addEventListener("change", () => take(file));
  addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dropping"); });
  addEventListener("dragleave", () => document.body.classList.remove("dropping"));
  addEventListener("drop", (event) => { event.preventDefault(); document.body.classList.remove("dropping"); take(event.dataTransfer.files[0]); });
}

addEventListener("resize", fit);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
fit();
try {
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = await unpacked("wasm");
  const session = async (name) => ort.InferenceSession.create(new Uint8Array(await unpacked(name)), { executionProviders: ["wasm"] });
  [decoder, encoder] = [await session("decoder"), await session("encoder")];
  globalThis.explorer = { state, decode, encode, screen: (row) => onScreen([points[2 * row], points[2 * row + 1]]), idle: () => new Promise((done) => setTimeout(() => inTurn(done), 0)) };
  await (about.space === "real vectors" ? look(about.centre, "all dimensions at the mean") : pick(0));
  document.body.dataset.ready = "";
} catch (error) {
  $("status").textContent = `the model cannot be run in this browser: ${error.message}`;
  throw error;
}
