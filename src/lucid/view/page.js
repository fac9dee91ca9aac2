"use strict";
// The page: what is unfolded, where one looks, what is selected, and the controls around it.

const FEW = 16; // boxes that the first picture shows at most, if modules can stay folded
const READABLE = 1; // the scale of the first picture, at least
const NEAR = 1; // the scale at which a found node is shown, at least

const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const canvas = $("canvas"), camera = $("camera");
const pen = document.createElement("canvas").getContext("2d");

/** Of a frame's title, in the font of the page. */
function textWidth(text) {
  pen.font = `bold ${data.titleSize}px Helvetica, Arial, 'Liberation Sans', sans-serif`;
  return pen.measureText(text).width * 1.05;
}

const open = new Set();
const layouts = new Layouts(data, open, textWidth);
const drawing = new Drawing(data, layouts);
const view = { x: 0, y: 0, scale: 1, moved: false };
let stage = data.stages[data.first];
let paths = new Map(); // of this stage: the scopes from the root to one, by its path
let homes = new Map(); // and to the scope of a node, by the node's number
let selected = null;

// -- the tree of this stage -----------------------------------------------------------------------

function walk(number, above) {
  const chain = [...above, number], scope = data.scopes[number];
  paths.set(scope.path, chain);
  for (const item of scope.items) item < 0 ? walk(-1 - item, chain) : homes.set(item, chain);
}

function nodeNamed(id) {
  for (const item of homes.keys()) if (data.nodes[item][0] === id) return item;
  return null;
}

/** Unfold from the outside in, to the depth asked for or as long as there is not much to see. */
function unfoldFirst() {
  let level = [stage.root], count = data.scopes[stage.root].items.length;
  for (let depth = 1; level.length; depth++) {
    const inner = level.flatMap((n) => data.scopes[n].items.filter((i) => i < 0).map((i) => -1 - i));
    const more = inner.reduce((sum, n) => sum + data.scopes[n].items.length, 0);
    if (!inner.length || (data.depth ? depth >= data.depth : count + more > FEW)) return;
    inner.forEach((n) => open.add(data.scopes[n].path));
    count += more;
    level = inner;
  }
}

// -- drawing --------------------------------------------------------------------------------------

function draw() {
  camera.replaceChildren(drawing.of(stage.root));
  heat();
  mark();
}

/** Colour what is visible by its share of the most that is; by roots, which tell more apart. */
function heat() {
  const field = HEATS[camera.dataset.by];
  const boxes = field ? [...camera.querySelectorAll(".box")] : [];
  const heats = boxes.map(({ dataset }) => (dataset.node
    ? data.nodes[dataset.node][field]
    : drawing.total(paths.get(dataset.scope).at(-1), field)));
  const most = Math.max(...heats) || 1;
  boxes.forEach((box, i) => {
    box.style.setProperty("--heat", `${Math.round(100 * Math.sqrt((heats[i] || 0) / most))}%`);
  });
}

/** Fold or unfold a module; what was clicked stays where it is. */
function toggle(path, wanted = !open.has(path)) {
  const chain = paths.get(path);
  if (!chain || wanted === open.has(path)) return;
  const before = corner(chain);
  wanted ? open.add(path) : open.delete(path);
  chain.forEach((number) => drawing.forget(number));
  draw();
  const after = corner(chain);
  view.x += (before.x - after.x) * view.scale;
  view.y += (before.y - after.y) * view.scale;
  view.moved = true;
  look();
}

/** The corner of a module in the picture, the scopes from the root to it given. */
function corner(chain) {
  let x = 0, y = 0;
  for (let i = 1; i < chain.length; i++) {
    const laid = layouts.of(chain[i - 1]);
    const slot = data.scopes[chain[i - 1]].items.indexOf(-1 - chain[i]);
    x += laid.left + laid.x[slot] - laid.cells[slot].width / 2;
    y += laid.top + laid.y[slot];
    if (!open.has(data.scopes[chain[i]].path)) break;
  }
  return { x, y };
}

// -- where one looks ------------------------------------------------------------------------------

function look() {
  camera.setAttribute("transform", `translate(${view.x},${view.y}) scale(${view.scale})`);
}

/** Show everything, in the middle of the room above the legend. */
function fit() {
  show(0);
}

/** What is seen at first: everything, or as much of its beginning as is legible. */
function begin() {
  show(READABLE);
}

/** Show the graph at the scale at which all is seen, or at `least`, from its beginning. */
function show(least) {
  const { width, height } = layouts.of(stage.root), room = canvas.getBoundingClientRect();
  const tall = room.height - $("legend").offsetHeight - 20;
  const whole = Math.min((room.width - 40) / width, (tall - 40) / height, 1.4);
  view.scale = Math.max(whole, Math.min(least, (room.width - 40) / width));
  view.x = (room.width - width * view.scale) / 2;
  view.y = Math.max(20, (tall - height * view.scale) / 2);
  view.moved = false;
  look();
}

function zoom(factor, x, y) {
  const scale = Math.min(8, Math.max(0.01, view.scale * factor));
  view.x = x - ((x - view.x) * scale) / view.scale;
  view.y = y - ((y - view.y) * scale) / view.scale;
  view.scale = scale;
  view.moved = true;
  look();
}

function zoomMiddle(factor) {
  const room = canvas.getBoundingClientRect();
  zoom(factor, room.width / 2, room.height / 2);
}

function pan(x, y) {
  view.x += x;
  view.y += y;
  view.moved = true;
  look();
}

/** Unfold all around a node, bring it to the middle and select it. */
function reveal(item) {
  const chain = homes.get(item);
  const closed = chain.filter((n) => n !== stage.root && !open.has(data.scopes[n].path));
  if (closed.length) {
    closed.forEach((n) => open.add(data.scopes[n].path));
    chain.forEach((n) => drawing.forget(n));
    draw();
  }
  const home = chain[chain.length - 1], laid = layouts.of(home);
  const slot = data.scopes[home].items.indexOf(item), at = corner(chain);
  const room = canvas.getBoundingClientRect();
  view.scale = Math.max(view.scale, NEAR);
  view.x = room.width / 2 - (at.x + laid.left + laid.x[slot]) * view.scale;
  const middle = at.y + laid.top + laid.y[slot] + laid.cells[slot].height / 2;
  view.y = room.height / 2 - middle * view.scale;
  view.moved = true;
  look();
  select(item);
}

// -- selecting ------------------------------------------------------------------------------------

function select(item) {
  selected = item;
  mark();
  describe();
  markBuffer();
}

/** Show what is selected, and the edges that lead to and from it. */
function mark() {
  for (const old of camera.querySelectorAll(".selected, .near")) old.classList.remove("selected", "near");
  if (selected === null) return;
  const [id, , , , , , , , results, reads] = data.nodes[selected];
  camera.querySelector(`[data-node="${selected}"]`)?.classList.add("selected");
  const values = new Set([...reads, ...results.map((_, i) => `${id}:${i}`)]);
  for (const edge of camera.querySelectorAll(".edge")) {
    if (values.has(edge.dataset.value)) edge.classList.add("near");
  }
}

// -- stages ---------------------------------------------------------------------------------------

function setStage(number) {
  const id = selected === null ? null : data.nodes[selected][0];
  stage = data.stages[number];
  $("slider").value = number;
  paths = new Map();
  homes = new Map();
  walk(stage.root, []);
  buildIndex();
  drawing.forgetAll();
  selected = id === null ? null : nodeNamed(id);
  draw();
  colour();
  const signs = { added: "+", changed: "~", removed: "−" };
  const counts = Object.entries(stage.counts).filter(([, n]) => n).map(([status, n]) =>
    `<span class="status ${status}">${signs[status]}${n} ${status}</span>`);
  $("stage-note").innerHTML = `<b>${escaped(stage.name)}</b> ${escaped(stage.note)} ${counts.join(" ")}`;
  [...$("ticks").children].forEach((tick, i) => tick.classList.toggle("current", i === number));
  describe();
  markBuffer();
  if (!view.moved) begin();
}

function step(by) {
  const number = data.stages.indexOf(stage) + by;
  if (number >= 0 && number < data.stages.length) setStage(number);
}

// -- colour ---------------------------------------------------------------------------------------

/** What can be coloured by besides kinds: the field of the nodes. */
const HEATS = { time: 10, noise: 11 };
const LEGENDS = { time: "the redder, the slower", noise: "the redder, the more noise by quantising" };

function colour() {
  const known = Object.keys(HEATS).filter((by) => drawing.total(stage.root, HEATS[by]) !== null);
  $("colour-label").hidden = !known.length;
  for (const option of $("colour").options) {
    option.hidden = option.disabled = option.value !== "kind" && !known.includes(option.value);
  }
  const by = known.includes($("colour").value) ? $("colour").value : "";
  camera.dataset.by = by;
  camera.classList.toggle("by-heat", by !== "");
  $("legend").innerHTML = by
    ? `<span class="scale"></span> ${LEGENDS[by]}`
    : families().map(([name, style]) => `<span>${swatch(style)} ${name}</span>`).join("");
  heat();
}

function families() {
  const shown = new Set([...homes.keys()].map((item) => data.nodes[item][2]));
  return data.families.filter(([name]) => shown.has(name) && name !== "input" && name !== "output");
}

// -- controls -------------------------------------------------------------------------------------

function setAll(unfolded) {
  open.clear();
  if (unfolded) for (const path of paths.keys()) if (path) open.add(path);
  drawing.forgetAll();
  draw();
  begin();
}

function press(button, panel) {
  const shown = panel.hidden;
  panel.hidden = !shown;
  button.setAttribute("aria-pressed", shown);
}

function activate(target) {
  const link = target.closest("[data-reveal]");
  const scope = target.closest("[data-scope]"), node = target.closest("[data-node]");
  const buffer = target.closest("[data-buffer]");
  if (link) {
    $("results").hidden = true;
    reveal(Number(link.dataset.reveal));
  } else if (scope) toggle(scope.dataset.scope);
  else if (node) select(Number(node.dataset.node));
  else if (buffer) {
    const item = bufferNode(buffer.dataset.buffer);
    if (item !== null) reveal(item);
    $("buffer-note").textContent = buffer.textContent;
  } else return false;
  return true;
}

const KEYS = {
  "/": ["search", () => $("search").focus()],
  "[": ["the stage before", () => step(-1)],
  "]": ["the stage after", () => step(1)],
  "+": ["nearer", () => zoomMiddle(1.25)],
  "-": ["further away", () => zoomMiddle(0.8)],
  0: ["show everything", fit],
  e: ["unfold all", () => setAll(true)],
  c: ["fold all", () => setAll(false)],
  m: ["the plan of memory", () => data.memory && press($("memory-button"), $("memory"))],
  "?": ["these keys", () => press($("help-button"), $("help"))],
  ArrowLeft: ["look left", () => pan(80, 0)],
  ArrowRight: ["look right", () => pan(-80, 0)],
  ArrowUp: ["look up", () => pan(0, 80)],
  ArrowDown: ["look down", () => pan(0, -80)],
  Escape: ["close, select nothing", () => { $("results").hidden = true; select(null); canvas.focus(); }],
};

function onKey(event) {
  const typing = event.target.matches("input[type=search], select, input[type=range]");
  if (event.ctrlKey || event.metaKey || event.altKey || (typing && event.key !== "Escape")) return;
  const target = event.target.closest("[data-scope], [data-node]");
  if (target && (event.key === "Enter" || event.key === " ")) activate(target);
  else if (KEYS[event.key]) KEYS[event.key][1]();
  else return;
  event.preventDefault();
}

function controls() {
  let grip = null;
  canvas.addEventListener("pointerdown", (e) => { grip = { x: e.clientX, y: e.clientY, far: false }; });
  window.addEventListener("pointermove", (e) => {
    if (!grip) return;
    const [dx, dy] = [e.clientX - grip.x, e.clientY - grip.y];
    if (!grip.far && Math.hypot(dx, dy) < 4) return;
    pan(dx, dy);
    grip = { x: e.clientX, y: e.clientY, far: true };
    canvas.classList.add("panning");
  });
  window.addEventListener("pointerup", (e) => {
    const click = grip && !grip.far;
    grip = null;
    canvas.classList.remove("panning");
    if (click && !activate(e.target)) select(null);
  });
  window.addEventListener("pointercancel", () => { grip = null; });
  canvas.addEventListener("wheel", (e) => {
    e.preventDefault();
    const room = canvas.getBoundingClientRect();
    if (e.ctrlKey || !e.shiftKey) zoom(Math.exp(-e.deltaY * 0.0015), e.clientX - room.left, e.clientY - room.top);
    else pan(-e.deltaY, 0);
  }, { passive: false });
  document.addEventListener("click", (e) => {
    if (canvas.contains(e.target)) return; // told by pointerup
    if (e.target.closest(".close")) select(null);
    else if (activate(e.target)) e.preventDefault();
    else if (!e.target.closest(".search")) $("results").hidden = true;
  });
  document.addEventListener("keydown", onKey);
  $("search").addEventListener("input", search);
  $("search").addEventListener("focus", search);
  $("search").addEventListener("keydown", (e) => {
    const first = $("results").querySelector("[data-reveal]");
    if (e.key === "Enter" && first) activate(first);
  });
  $("slider").addEventListener("input", () => setStage(Number($("slider").value)));
  $("ticks").addEventListener("click", (e) => {
    if (e.target.dataset.stage) setStage(Number(e.target.dataset.stage));
  });
  $("colour").addEventListener("change", colour);
  $("fit").addEventListener("click", fit);
  $("unfold").addEventListener("click", () => setAll(true));
  $("fold").addEventListener("click", () => setAll(false));
  $("memory-button").addEventListener("click", () => press($("memory-button"), $("memory")));
  $("help-button").addEventListener("click", () => press($("help-button"), $("help")));
  window.addEventListener("resize", () => { if (!view.moved) begin(); });
}

function start() {
  $("name").textContent = data.name;
  $("slider").max = data.stages.length - 1;
  $("passes").hidden = data.stages.length < 2;
  $("ticks").innerHTML = data.stages.map((s, i) => `<button data-stage="${i}">${escaped(s.name)}</button>`).join("");
  $("memory-button").hidden = !data.memory;
  $("help").innerHTML = `<dl>${Object.entries(KEYS).map(([key, [what]]) => fact([key, what])).join("")}</dl>`;
  if (data.memory) drawMemory();
  walk(stage.root, []);
  unfoldFirst();
  controls();
  setStage(data.first);
  begin();
}

start();
