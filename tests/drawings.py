"""Where things lie in an SVG that Lucid drew."""

import re
import xml.etree.ElementTree as ElementTree
from typing import NamedTuple

from lucid.view.text_width import SIZES, text_width

NAMESPACE = "{http://www.w3.org/2000/svg}"


class Area(NamedTuple):
    """A rectangle and what it is called."""

    name: str
    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: "Area") -> bool:
        return (
            self.left < other.right - 0.5
            and other.left < self.right - 0.5
            and self.top < other.bottom - 0.5
            and other.top < self.bottom - 0.5
        )

    def holds(self, other: "Area") -> bool:
        return (
            self.left <= other.left + 0.5
            and self.top <= other.top + 0.5
            and self.right >= other.right - 0.5
            and self.bottom >= other.bottom - 0.5
        )


def rectangle(element, dx=0.0, dy=0.0, name=""):
    x, y, width, height = (float(element.get(k, 0)) for k in ("x", "y", "width", "height"))
    return Area(name, x + dx, y + dy, x + dx + width, y + dy + height)


def label(element, dx=0.0, dy=0.0):
    """The area of a text, as wide as it is reckoned to be without its margin."""
    style = element.get("class").split()
    kind = next(s for s in style if s in SIZES)
    size = SIZES[kind]
    wide = text_width(element.text, size, kind in ("title", "frame-title"))
    x, y = float(element.get("x")) + dx, float(element.get("y")) + dy
    left = x - wide / 2 if "middle" in style else x
    return Area(element.text, left, y - 0.75 * size, left + wide, y + 0.2 * size)


class Drawing:
    """Boxes, frames and labels of one SVG, in the coordinates of the whole."""

    def __init__(self, text: str) -> None:
        self.root = ElementTree.fromstring(text)
        self.frames = [rectangle(e) for e in self.every("rect", "frame")]
        self.labels = [label(e) for e in self.every("text", "frame-title")]
        self.boxes: list[Area] = []
        for group in self.every("g", "box"):
            dx, dy = map(float, re.findall(r"-?[\d.]+", group.get("transform")))
            body = next(e for e in group if "body" in e.get("class", ""))
            self.boxes.append(rectangle(body, dx, dy, group.get("data-id")))
            self.labels += [label(e, dx, dy) for e in group.iter(f"{NAMESPACE}text")]
        self.edges = [e.get("d") for e in self.every("path", "edge")]

    def every(self, tag: str, style: str):
        found = self.root.iter(NAMESPACE + tag)
        return [e for e in found if style in e.get("class", "").split()]


def overlaps(areas):
    """The pairs that overlap."""
    areas = sorted(areas, key=lambda a: a.top)
    found = []
    for i, area in enumerate(areas):
        for other in areas[i + 1 :]:
            if other.top >= area.bottom:
                break
            if area.overlaps(other):
                found.append((area.name, other.name))
    return found
