"use strict";
// Coordinates of one module whose order is known, as in place.py, for whatever is unfolded in it.

const BETWEEN = 18, GAP = 24, PORT_GAP = 12, BEND = 36, PITCH = 15, PASSES = 7;
const SIDE = 14, HEAD = 24, FOOT = 10;
const BOX = 4, MIXED = 1, LANE = 12; // weights of links between boxes, with a lane, within one
const FIRM = { [BOX]: 1, [MIXED]: 0.0001, [LANE]: 0.003 }; // how firmly it keeps its place in a row

/** What stands in each slot of an order: {width, height, foot, ins, outs}; `ins` and `outs` say
 *  where links of a wire enter and leave, from the middle; `light`: it hangs beside what others
 *  stand below. Gives {x, y, row, tops, bottoms, ...}. */
function place(order, cells) {
  const [ins, outs, lanes, layers, wired] = order;
  const slots = layers.reduce((n, layer) => n + layer.length, 0);
  while (cells.length < slots) cells.push({ width: 0, height: 0, foot: 0, ins: {}, outs: {} });
  enter(layers, wired, lanes, cells);
  const links = wired.map(([w, a, b]) => ({
    wire: w, a, b, leave: cells[a].outs[w] || 0, enter: cells[b].ins[w] || 0,
  }));
  const x = columns(layers, links, lanes, cells);
  if (ins === 1 && outs === 1) x[lanes - 1] = x[lanes - 2];
  const placed = rows(order, links, cells, x);
  const left = Math.min(...cells.map((c, s) => x[s] - c.width / 2));
  const right = Math.max(...cells.map((c, s) => x[s] + c.width / 2));
  return {
    ...placed, links, lanes, cells, x: x.map((v) => v - left),
    width: right - left, height: placed.bottoms[placed.bottoms.length - 1] || 0,
  };
}

/** Spread the ends of links over the tops of boxes, one from a box above in the middle. */
function enter(layers, wired, lanes, cells) {
  const position = [];
  for (const layer of layers) layer.forEach((slot, i) => { position[slot] = i; });
  const entering = new Map();
  for (const [wire, a, b] of wired) {
    if (cells[b].ins) continue;
    if (!entering.has(b)) entering.set(b, []);
    entering.get(b).push([wire, a]);
  }
  cells.forEach((cell) => { cell.ins = cell.ins || {}; });
  for (const [slot, ends] of entering) {
    ends.sort((p, q) => position[p[1]] - position[q[1]]);
    const main = Math.max(0, ends.findIndex(([, a]) => a < lanes));
    const far = Math.max(main, ends.length - 1 - main, 1);
    const pitch = Math.min(PITCH, (cells[slot].width / 2 - 8) / far);
    ends.forEach(([wire], i) => { cells[slot].ins[wire] = (i - main) * pitch; });
  }
}

/** The middle of each slot: as near as may be to what it is linked with. */
function columns(layers, links, lanes, cells) {
  const x = cells.map(() => 0);
  const up = cells.map(() => []), down = cells.map(() => []);
  for (const { a, b, leave, enter } of links) {
    const weight = cells[b].light ? MIXED : [BOX, MIXED, LANE][(a >= lanes) + (b >= lanes)];
    up[b].push([a, leave - enter, weight]);
    down[a].push([b, enter - leave, weight]);
  }
  for (const layer of layers) settle(layer, layer.map(() => [0, 1]), cells, x);
  const upwards = [...layers].reverse();
  for (let pass = 0; pass < PASSES; pass++) {
    const near = pass % 2 ? down : up;
    for (const layer of pass % 2 ? upwards : layers) {
      settle(layer, layer.map((slot) => wish(slot, near[slot], x)), cells, x);
    }
  }
  return x;
}

/** Where a slot would like to be, the weighted median of what it is linked with; how firmly. */
function wish(slot, near, x) {
  if (!near.length) return [x[slot], FIRM[MIXED]];
  const firm = Math.max(...near.map((link) => FIRM[link[2]]));
  const places = near.map(([other, shift, weight]) => [x[other] + shift, weight]);
  places.sort((p, q) => p[0] - q[0]);
  const half = places.reduce((sum, p) => sum + p[1], 0) / 2;
  let passed = 0;
  for (let i = 0; ; i++) {
    passed += places[i][1];
    if (passed > half) return [places[i][0], firm];
    if (passed === half) return [(places[i][0] + places[i + 1][0]) / 2, firm];
  }
}

/** Set `x` of a row: least squares from the wishes, no two nearer than they may be. */
function settle(layer, wished, cells, x) {
  const blocks = [], shifts = []; // a block: weighted sum of wishes, weight, members
  let shift = 0;
  layer.forEach((slot, i) => {
    if (i) shift += (cells[layer[i - 1]].width + cells[slot].width) / 2 + BETWEEN;
    shifts.push(shift);
    const [wish, weight] = wished[i];
    blocks.push([(wish - shift) * weight, weight, 1]);
    for (let n = blocks.length; n > 1; n--) {
      const [p, q] = [blocks[n - 2], blocks[n - 1]];
      if (p[0] / p[1] <= q[0] / q[1]) break;
      blocks.splice(n - 2, 2, [p[0] + q[0], p[1] + q[1], p[2] + q[2]]);
    }
  });
  let i = 0;
  for (const [total, weight, count] of blocks) {
    for (let n = 0; n < count; n++, i++) x[layer[i]] = total / weight + shifts[i];
  }
}

/** Tops and bottoms of rows, then the top and the row of each slot. */
function rows([ins, outs, lanes, layers], links, cells, x) {
  const row = [], y = [], tops = [], bottoms = [], bends = layers.map(() => 0);
  layers.forEach((layer, number) => layer.forEach((slot) => { row[slot] = number; }));
  for (const { a, b, leave, enter } of links) {
    bends[row[a]] = Math.max(bends[row[a]], Math.abs(x[a] + leave - x[b] - enter));
  }
  let at = 0;
  layers.forEach((layer, number) => {
    const height = Math.max(...layer.map((slot) => cells[slot].height));
    tops.push(at);
    bottoms.push(at + height);
    for (const slot of layer) y[slot] = at + (slot >= lanes ? 0 : (height - cells[slot].height) / 2);
    const ports = (number === 0 && ins) || (number + 2 === layers.length && outs);
    at += height + (ports ? PORT_GAP : GAP) + Math.min(BEND, bends[number] / 6);
  });
  return { x, y, row, tops, bottoms };
}

/** The layout of modules, each kept until something in it is folded or unfolded. */
class Layouts {
  constructor(data, open, textWidth) {
    Object.assign(this, { data, open, textWidth, kept: new Map() });
  }

  /** The layout of a scope by its number, with its frame unless it is the root. */
  of(number) {
    if (!this.kept.has(number)) this.kept.set(number, this.laidOut(this.data.scopes[number]));
    return this.kept.get(number);
  }

  laidOut(scope) {
    const cells = scope.items.map((item, slot) => this.cell(scope, item, slot));
    for (let i = scope.ins.length + scope.outs.length; i > 0; i--) {
      cells.push({ width: 4, height: 0, foot: 0, ins: {}, outs: {} });
    }
    const laid = place(this.data.orders[scope.order], cells);
    if (!scope.path) return { ...laid, left: 0, top: 0 };
    const label = 20 + this.textWidth(frameTitle(scope));
    const ports = scope.ins.map((_, i) => laid.x[scope.items.length + i]);
    const left = Math.max(SIDE, label - Math.min(label, ...ports));
    return {
      ...laid, left, top: HEAD,
      width: Math.max(left + laid.width + SIDE, label), height: HEAD + laid.height + FOOT,
    };
  }

  /** The size of an item, and where its links enter and leave. */
  cell(scope, item, slot) {
    const inner = item < 0 ? this.data.scopes[-1 - item] : null;
    if (inner && this.open.has(inner.path)) return this.frameCell(scope, item, inner, slot);
    const look = this.data.looks[inner ? inner.look : this.data.nodes[item][5]];
    const cell = { width: look[0], height: look[1], foot: look[2], ins: null, outs: {} };
    cell.light = !inner && this.data.nodes[item][4] === "removed";
    scope.wires.forEach(([name, source], wire) => {
      if (source !== slot) return;
      const result = inner ? inner.outs.indexOf(name) : Number(name.slice(name.lastIndexOf(":") + 1));
      cell.outs[wire] = look[3][result];
    });
    return cell;
  }

  frameCell(scope, item, inner, slot) {
    const laid = this.of(-1 - item);
    const first = inner.items.length;
    const port = (number) => laid.left + laid.x[first + number] - laid.width / 2;
    const cell = { width: laid.width, height: laid.height, foot: laid.height, ins: {}, outs: {} };
    scope.wires.forEach(([name, source, targets], wire) => {
      if (targets.includes(slot)) cell.ins[wire] = port(inner.ins.indexOf(name));
      if (source === slot) cell.outs[wire] = port(inner.ins.length + inner.outs.indexOf(name));
    });
    return cell;
  }
}

function frameTitle(scope) {
  return `▾ ${scope.title}${scope.repeat > 1 ? ` ×${scope.repeat}` : ""}`;
}
