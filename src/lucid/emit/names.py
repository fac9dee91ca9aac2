"""Names and texts as C writes them."""

from __future__ import annotations

import re


def identifier(text: str) -> str:
    """A name in lower case that C takes, made of any text."""
    made = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
    return f"m_{made}".rstrip("_") if not made or made[0].isdigit() else made


def literal(text: str) -> str:
    """A string literal: all that is no plain ASCII as octal bytes, and no trigraphs."""
    plain = {*range(32, 127)} - {*b'"\\?'}
    return '"' + "".join(chr(b) if b in plain else f"\\{b:03o}" for b in text.encode()) + '"'


def comment(text: str) -> str:
    """A text of one line that can stand in a comment."""
    return "".join(c if " " <= c <= "~" else "?" for c in text).replace("*/", "* /")
