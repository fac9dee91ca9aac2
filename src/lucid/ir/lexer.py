"""From text to tokens, and the errors that point into the text."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from lucid.errors import ParseError

_TOKEN = re.compile(
    r"""
      (?P<skip> \s+ | \#[^\n]* )
    | (?P<value> % (?: [\w.]+ | "(?:[^"\\\n]|\\.)*" ) )
    | (?P<ref> @ (?: [\w.]+ | "(?:[^"\\\n]|\\.)*" ) )
    | (?P<string> "(?:[^"\\\n]|\\.)*" )
    | (?P<number> -? (?: (?:inf|nan)\b | \d+ (?: \.\d* )? (?: [eE][+-]?\d+ )? ) )
    | (?P<name> [A-Za-z_]\w* )
    | (?P<sign> -> | [(){}\[\]=,:] )
    """,
    re.VERBOSE | re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Token:
    """One token: its kind, its text, and where it lies."""

    kind: str  # value, ref, string, number, name, sign or end
    text: str
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.text)

    @property
    def plain(self) -> str:
        """The name of a value or ref, or the contents of a string, unquoted."""
        body = self.text[1:] if self.kind in ("value", "ref") else self.text
        return str(json.loads(body)) if body.startswith('"') else body

    def __str__(self) -> str:
        return "the end of the text" if self.kind == "end" else repr(self.text)


def tokenize(text: str) -> list[Token]:
    """The tokens of a text, the last of kind `end`. Raises ParseError."""
    tokens, position = [], 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise error_at(text, position, f"unexpected character {text[position]!r}")
        if match.lastgroup and match.lastgroup != "skip":
            tokens.append(Token(match.lastgroup, match.group(), position))
            if match.group().endswith('"'):
                _check_quoted(text, tokens[-1])
        position = match.end()
    tokens.append(Token("end", "", len(text)))
    return tokens


def _check_quoted(text: str, token: Token) -> None:
    """Raises ParseError for a string with escapes or characters that JSON's strings have not."""
    try:
        _ = token.plain
    except ValueError as problem:
        message = f"{token.text} is no string as in JSON: {problem}"
        raise error_at(text, token.start, message) from problem


def error_at(text: str, position: int, message: str) -> ParseError:
    """An error that shows the line and points at the column."""
    before = text[:position]
    line, column = before.count("\n") + 1, position - (before.rfind("\n") + 1) + 1
    shown = text.split("\n")[line - 1]
    return ParseError(f"line {line}, column {column}: {message}\n  {shown}\n  {'^':>{column}}")
