"""Names and texts as C writes them."""

from __future__ import annotations

import re

WORDS = """
main std alignas alignof and and_eq asm auto bitand bitor bool break case catch char class compl
concept const constexpr continue decltype default delete do double else enum explicit export extern
false float for friend goto if inline int long mutable namespace new noexcept not not_eq nullptr
operator or or_eq private protected public register requires return short signed sizeof static
struct switch template this throw true try typedef typeid typename union unsigned using virtual void
volatile wchar_t while xor xor_eq
"""
RESERVED = frozenset(WORDS.split())
"""What a library cannot be called: the example's source, and words that no namespace of C++ has."""


def identifier(text: str) -> str:
    """A name in lower case that C and C++ take, made of any text."""
    made = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
    if not made or made[0].isdigit() or made in RESERVED:
        return f"m_{made}".rstrip("_")
    return made


def literal(text: str) -> str:
    """A string literal: all that is no plain ASCII as octal bytes, and no trigraphs."""
    plain = {*range(32, 127)} - {*b'"\\?'}
    return '"' + "".join(chr(b) if b in plain else f"\\{b:03o}" for b in text.encode()) + '"'


def comment(text: str) -> str:
    """A text of one line that can stand in a comment."""
    return "".join(c if " " <= c <= "~" else "?" for c in text).replace("*/", "* /")
