"use strict";
// From layouts to SVG elements: one group for each unfolded module, kept while it does not change.

const SVG = "http://www.w3.org/2000/svg";

function escaped(text) {
  return String(text).replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
}

/** An SVG element from its markup. */
function element(markup) {
  const holder = document.createElementNS(SVG, "g");
  holder.innerHTML = markup;
  return holder.firstElementChild;
}

/** Straight down to the row's end, in an S to the next row, and down. */
function curve(x1, y1, bend, x2, meet, y2) {
  if (Math.abs(x1 - x2) < 0.5) return `M${x1},${y1}V${y2}`;
  const middle = (bend + meet) / 2;
  return `M${x1},${y1}V${bend}C${x1},${middle} ${x2},${middle} ${x2},${meet}V${y2}`;
}

function arrow(x, y) {
  return `M${x - 3.5},${y - 5.5}L${x},${y - 0.6}L${x + 3.5},${y - 5.5}`;
}

class Drawing {
  constructor(data, layouts) {
    Object.assign(this, { data, layouts, kept: new Map() });
  }

  /** The element of a scope, at its own origin. */
  of(number) {
    if (!this.kept.has(number)) this.kept.set(number, this.drawn(number));
    return this.kept.get(number);
  }

  forget(number) {
    this.kept.delete(number);
    this.layouts.kept.delete(number);
  }

  forgetAll() {
    this.kept.clear();
    this.layouts.kept.clear();
  }

  drawn(number) {
    const scope = this.data.scopes[number], laid = this.layouts.of(number);
    const inner = [];
    const markup = [scope.path ? this.frame(scope, laid) : "", ...this.links(scope, laid)];
    scope.items.forEach((item, slot) => {
      const x = laid.left + laid.x[slot] - laid.cells[slot].width / 2;
      const y = laid.top + laid.y[slot];
      if (item >= 0) markup.push(this.box(item, x, y));
      else if (this.layouts.open.has(this.data.scopes[-1 - item].path)) inner.push([-1 - item, x, y]);
      else markup.push(this.folded(-1 - item, x, y));
    });
    const group = element(`<g class="scope">${markup.join("")}</g>`);
    for (const [child, x, y] of inner) {
      const drawn = this.of(child);
      drawn.setAttribute("transform", `translate(${x},${y})`);
      group.append(drawn);
    }
    return group;
  }

  frame(scope, laid) {
    const title = escaped(frameTitle(scope)), path = escaped(scope.path);
    const wide = this.layouts.textWidth(frameTitle(scope));
    return `<rect class="frame" data-frame="${path}" width="${laid.width}" height="${laid.height}" rx="10"/>` +
      `<g class="fold" data-scope="${path}" tabindex="0" role="button" aria-expanded="true">` +
      `<rect class="handle" x="4" y="4" width="${wide + 12}" height="18" rx="5"/>` +
      `<text class="frame-title" x="10" y="17">${title}</text></g>`;
  }

  box(item, x, y) {
    const [id, title, , origin, status, look] = this.data.nodes[item];
    return `<g class="box ${status}" data-node="${item}" data-id="${escaped(id)}" ` +
      `tabindex="0" role="button" aria-label="${escaped(`${title} ${origin}`)}" ` +
      `transform="translate(${x},${y})">${this.data.looks[look][4]}</g>`;
  }

  folded(number, x, y) {
    const scope = this.data.scopes[number];
    return `<g class="box folded" data-scope="${escaped(scope.path)}" tabindex="0" role="button" ` +
      `aria-expanded="false" aria-label="${escaped(scope.title)}" ` +
      `transform="translate(${x},${y})">${this.data.looks[scope.look][4]}</g>`;
  }

  /** The sum of a field of the nodes over everything in a scope; null where none is known. */
  total(number, field) {
    let sum = null;
    for (const item of this.data.scopes[number].items) {
      const own = item < 0 ? this.total(-1 - item, field) : this.data.nodes[item][field];
      if (own !== null) sum = (sum || 0) + own;
    }
    return sum;
  }

  links(scope, laid) {
    const { x, y, row, tops, bottoms, lanes, cells } = laid;
    const items = scope.items.length, end = tops.length - 1;
    return laid.links.map(({ wire, a, b, leave, enter }) => {
      const [name, , targets, old] = scope.wires[wire];
      const gone = b >= lanes ? old.length === targets.length : old.includes(b);
      let y1 = a >= lanes ? tops[row[a]] : y[a] + cells[a].foot;
      let y2 = b >= lanes ? tops[row[b]] : y[b];
      if (scope.path && row[a] === 0 && a >= items) y1 -= HEAD;
      if (scope.path && row[b] === end && b >= items && b < lanes) y2 += FOOT;
      const [dx, dy] = [laid.left, laid.top];
      const x1 = dx + x[a] + leave, x2 = dx + x[b] + enter;
      const line = curve(x1, dy + y1, dy + bottoms[row[a]], x2, dy + tops[row[b]], dy + y2);
      const target = b < items ? scope.items[b] : -1;
      const whole = b < items &&
        (target >= 0 || !this.layouts.open.has(this.data.scopes[-1 - target].path));
      return `<path class="edge${gone ? " gone" : ""}" data-value="${escaped(name)}" ` +
        `d="${line}${whole ? arrow(x2, dy + y2) : ""}"/>`;
    });
  }
}
