"use strict";
// The panels around the picture: what is selected, what was found, the plan of memory.

// -- what is selected -----------------------------------------------------------------------------

function describe() {
  const aside = $("details");
  aside.hidden = selected === null;
  if (selected === null) return;
  const [id, title, kind, origin, status, , facts, parts, results, reads, ms, noise] = data.nodes[selected];
  const known = new Set(["op", "origin", "fused from"]);
  const rows = data.facts[facts].filter(([key]) => !known.has(key));
  const sections = [
    `<button class="close" aria-label="Close">×</button><h2>${escaped(title)}</h2>`,
    `<p class="faint">%${escaped(id)}${origin ? ` in <b>${escaped(origin)}</b>` : ""} · ${escaped(kind)}</p>`,
    status ? `<p class="status ${status}">${status} by ${escaped(stage.name)}</p>` : "",
    ms === null ? "" : `<p>${ms.toPrecision(3)} ms</p>`,
    noise ? `<p>${(-10 * Math.log10(noise)).toFixed(1)} dB signal to noise</p>` : "",
    section("results", results.map((r) => `<code>${escaped(r)}</code>`)),
    section("reads", reads.map(link)),
    section("read by", readers(id).map((item) => link(`${data.nodes[item][0]}:0`))),
    section("made of", data.parts[parts].map(([op, from, family]) =>
      `${swatch(family)} ${escaped(op)} <span class="faint">${escaped(from)}</span>`)),
    rows.length ? `<h3>attributes</h3><dl>${rows.map(fact).join("")}</dl>` : "",
  ];
  aside.innerHTML = sections.join("");
  aside.scrollTop = 0;
}

function section(title, items) {
  return items.length ? `<h3>${title}</h3><ul>${items.map((i) => `<li>${i}</li>`).join("")}</ul>` : "";
}

function fact([key, value]) {
  return `<dt>${escaped(key)}</dt><dd>${escaped(value)}</dd>`;
}

function link(value) {
  const id = value.slice(0, value.lastIndexOf(":")), item = nodeNamed(id);
  if (item === null) return escaped(id);
  const [, title, , origin] = data.nodes[item];
  return `<a href="#" data-reveal="${item}">${escaped(title)}</a> <span class="faint">${escaped(origin || `%${id}`)}</span>`;
}

function readers(id) {
  return [...homes.keys()].filter((item) =>
    data.nodes[item][9].some((value) => value.slice(0, value.lastIndexOf(":")) === id));
}

// -- searching ------------------------------------------------------------------------------------

const FOUND = 40; // results that are listed

let index = [];

function buildIndex() {
  index = [...homes.keys()].map((item) => {
    const [id, title, kind, origin, status, , , parts, results] = data.nodes[item];
    const made = data.parts[parts].map(([op, from]) => `${op} ${from}`);
    return [item, [origin, title, `%${id}`, kind, status, ...results, ...made].join(" ").toLowerCase()];
  });
}

function search() {
  const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const list = $("results");
  list.hidden = !words.length;
  if (!words.length) return;
  const found = index.filter(([, text]) => words.every((w) => text.includes(w)));
  const shown = found.slice(0, FOUND).map(([item]) => {
    const [id, title, , origin] = data.nodes[item];
    return `<li><a href="#" data-reveal="${item}"><b>${escaped(title)}</b> ${escaped(origin || `%${id}`)}</a></li>`;
  });
  const rest = found.length > FOUND ? `<li class="faint">and ${found.length - FOUND} more</li>` : "";
  list.innerHTML = shown.join("") + rest || '<li class="faint">nothing found</li>';
}

// -- memory ---------------------------------------------------------------------------------------

/** A small sample of a family's colours. */
function swatch(style) {
  return `<svg class="lucid swatch" viewBox="0 0 12 12"><rect class="${style}" x="0.5" y="0.5" width="11" height="11" rx="3"/></svg>`;
}

function drawMemory() {
  const { size, phases, buffers } = data.memory;
  const wide = 1000, high = 150;
  const blocks = buffers.map((b) => {
    const x = (wide * b.first) / phases, width = (wide * (b.last - b.first + 1)) / phases;
    const y = high * (1 - (b.offset + b.size) / size), height = (high * b.size) / size;
    const told = `${b.name}: ${kib(b.size)} at ${kib(b.offset)}, phases ${b.first} to ${b.last}`;
    return `<rect class="buffer" data-buffer="${escaped(b.name)}" x="${x}" y="${y}" width="${width}" ` +
      `height="${height}"><title>${escaped(told)}</title></rect>`;
  });
  $("memory").innerHTML =
    `<p><b>arena</b> ${kib(size)}, ${buffers.length} buffers over ${phases} phases: ` +
    `time to the right, addresses upwards. <span id="buffer-note" class="faint">Click a buffer to find its node.</span></p>` +
    `<svg viewBox="0 0 ${wide} ${high}" preserveAspectRatio="none">${blocks.join("")}</svg>`;
}

function kib(bytes) {
  return bytes < 1 << 20 ? `${(bytes / 1024).toFixed(1)} KiB` : `${(bytes / (1 << 20)).toFixed(1)} MiB`;
}

/** The node that a buffer belongs to: that of its name, or of the beginning of it. */
function bufferNode(name) {
  return nodeNamed(name) ?? nodeNamed(name.split(".")[0]);
}

function markBuffer() {
  if (!data.memory) return;
  const id = selected === null ? null : data.nodes[selected][0];
  for (const block of $("memory").querySelectorAll(".buffer")) {
    const mine = id !== null && block.dataset.buffer.split(".")[0] === id;
    block.classList.toggle("selected", mine);
    if (mine) $("buffer-note").textContent = block.textContent;
  }
}
