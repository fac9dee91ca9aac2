"""A picture of a memory plan: phases to the right, the arena upwards, a rectangle a buffer."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from lucid.runtime.memory_map import MemoryMap, Place

WIDTH, HEIGHT = 1200, 680
LEFT, RIGHT, TOP, BOTTOM = 78, 20, 64, 140
"""Margins, for the axes and the title."""
LETTER = 6.1
"""The width of a letter in labels, at most."""
LINE = 13
TICKS = 6
COLOURS = ("#a9cbee", "#f4c58f", "#b5dfb8", "#d8c4ec", "#f2e3a3", "#f0b8b8", "#b6e0de", "#dcd3c3")
"""One after the other for the model's topmost modules."""


def picture(memory: MemoryMap) -> str:
    """The plan as an SVG document of its own."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            f'width="{WIDTH}" height="{HEIGHT}" font-family="Helvetica, Arial, sans-serif" '
            'font-size="11" fill="#26303b">',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
            *_Drawing(memory).parts(),
            "</svg>",
            "",
        ]
    )


class _Drawing:
    def __init__(self, memory: MemoryMap) -> None:
        self.memory = memory
        self.column = (WIDTH - LEFT - RIGHT) / max(1, len(memory.phases))
        self.scale = (HEIGHT - TOP - BOTTOM) / max(1, memory.peak)
        tops = dict.fromkeys(p.origin.partition(".")[0] for p in memory.places)
        self.colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(tops)}

    def x(self, phase: int) -> float:
        return LEFT + phase * self.column

    def y(self, offset: float) -> float:
        return HEIGHT - BOTTOM - offset * self.scale

    def parts(self) -> Iterator[str]:
        yield from self.title()
        yield from self.axes()
        for place in self.memory.places:
            yield self.place(place)
        yield from self.bound()
        for place in self.memory.places:
            yield from self.label(place)

    def title(self) -> Iterator[str]:
        m = self.memory
        yield (
            f'<text x="{LEFT}" y="26" font-size="16" font-weight="bold">'
            f"{escape(m.model)}: memory plan, batch {m.batch}</text>"
        )
        facts = f"arena {_size(m.peak)}, lower bound {_size(m.bound)}, weights {_size(m.weights)}"
        yield f'<text x="{LEFT}" y="44" fill="#55606e">{facts}</text>'

    def axes(self) -> Iterator[str]:
        """Sizes on the left, phases by number below, and the module where another one begins."""
        for tick in range(TICKS + 1):
            offset = self.memory.peak * tick / TICKS
            y = self.y(offset)
            yield (
                f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" '
                'stroke="#e3e7eb"/>'
            )
            yield f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_size(offset)}</text>'
        base, free = HEIGHT - BOTTOM, 0.0
        for number, phase in enumerate(self.memory.phases):
            x, name = self.x(number) + self.column / 2, phase.origins[0] if phase.origins else ""
            if x >= free:  # labels stand upright, a line apart
                free = x + LINE
                label = _cut(f"{number} {name}", BOTTOM - 24)
                yield (
                    f'<text transform="translate({x + 4:.1f} {base + 8}) rotate(90)" '
                    f'font-size="10">{escape(label)}</text>'
                )
        where = f'x="{LEFT}" y="{HEIGHT - 6}" fill="#55606e"'
        yield f"<text {where}>phases, a barrier between two</text>"

    def box(self, place: Place) -> tuple[float, float, float, float]:
        """Left, top, width and height of a buffer's rectangle."""
        width, height = (place.last - place.first + 1) * self.column, place.bytes * self.scale
        return self.x(place.first), self.y(place.offset) - height, width, height

    def place(self, place: Place) -> str:
        """The rectangle of a buffer, and what a pointer on it shows."""
        x, y, width, height = self.box(place)
        tip = (
            f"{place.name} ({place.origin}): {_size(place.bytes)} at {_size(place.offset)}, "
            f"phases {place.first} to {place.last}"
        )
        fill = self.colours[place.origin.partition(".")[0]]
        return (
            f'<rect x="{x + 0.5:.1f}" y="{y:.1f}" width="{max(1.0, width - 1):.1f}" '
            f'height="{max(0.5, height):.1f}" fill="{fill}" stroke="#6c7883" stroke-width="0.7">'
            f"<title>{escape(tip)}</title></rect>"
        )

    def label(self, place: Place) -> Iterator[str]:
        """The module that makes the buffer and its size, as far as there is room."""
        left, top, width, height = self.box(place)
        x, y = left + width / 2, top + height / 2
        long, short = max(width, height) - 6, min(width, height)
        text = next((t for t in _names(place) if LETTER * len(t) <= long), None)
        if short < LINE - 2 or text is None:
            return
        turn = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if height > width else ""
        halo = f'stroke="{self.colours[place.origin.partition(".")[0]]}" stroke-width="3"'
        yield (
            f'<text x="{x:.1f}" y="{y + 4:.1f}" text-anchor="middle" paint-order="stroke" '
            f'{halo} pointer-events="none"{turn}>{escape(text)}</text>'
        )

    def bound(self) -> Iterator[str]:
        """What is alive in each phase, as a line that a perfect plan would touch."""
        points = [
            f"{self.x(number + side):.1f},{self.y(phase.alive):.1f}"
            for number, phase in enumerate(self.memory.phases)
            for side in (0, 1)
        ]
        yield (
            f'<polyline points="{" ".join(points)}" fill="none" stroke="#b3372f" '
            'stroke-width="1.2" stroke-dasharray="5 3"/>'
        )
        yield (
            f'<text x="{WIDTH - RIGHT}" y="44" text-anchor="end" fill="#b3372f">'
            "- - - bytes alive in a phase</text>"
        )


def _names(place: Place) -> list[str]:
    """What to write on a buffer, the longest first."""
    name = place.origin or place.name
    return [f"{name} {_size(place.bytes)}", name, place.name]


def _cut(text: str, room: float) -> str:
    letters = int(room / (LETTER - 0.6))
    return text if len(text) <= letters else text[: letters - 1] + "…"


def _size(count: float) -> str:
    if count >= 1 << 20:
        return f"{count / 2**20:.1f} MiB"
    return f"{count / 1024:.0f} KiB"
