"""Text for a person. What a stranger wrote passes :func:`display` before it reaches a terminal, a log or an error."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from quicprochat.console.errors import code_of, exit_code
from quicprochat.core.errors import QuicprochatError
from quicprochat.core.names import BLANKS
from quicprochat.core.time import WallTime

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

SHOWN_MAX_CHARS = 4_096
LOG_MAX_CHARS = 65_536

_SPACES = frozenset("\t\v\f\x85\u2028\u2029")
_MARKS_THAT_SHOW = frozenset("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd")
"""Format characters with a shape of their own (Unicode: Prepended_Concatenation_Mark)."""


def display(text: str, limit: int = SHOWN_MAX_CHARS) -> str:
    """Return a stranger's text as it may be shown: no control, bidi or invisible characters, normalised, not endless.

    Newlines stay, tabs and other line separators become spaces. What steers a terminal (C0, C1, DEL), turns the writing
    direction around or cannot be seen is taken out; so are halves of surrogate pairs.
    """
    shown = unicodedata.normalize("NFC", "".join(filter(None, map(_shown, text))))
    if len(shown) > limit:
        return f"{shown[:limit]}… ({len(shown) - limit} more characters; --json shows all)"
    return shown


def _shown(character: str) -> str:
    if character.isascii():
        return character if character.isprintable() or character == "\n" else " " if character in _SPACES else ""
    if character in _SPACES:
        return " "
    if character in BLANKS or (
        unicodedata.category(character) in ("Cc", "Cf", "Cs") and character not in _MARKS_THAT_SHOW
    ):
        return ""
    return character


def display_line(text: str, limit: int = SHOWN_MAX_CHARS) -> str:
    """Return a text as :func:`display` does, on one line."""
    return display(text.replace("\n", " "), limit)


class SafeFormatter(logging.Formatter):
    """Log lines; a peer's words in them cannot steer the terminal that shows them."""

    def format(self, record: logging.LogRecord) -> str:
        return display(super().format(record), LOG_MAX_CHARS)


def plural(count: int, what: str) -> str:
    """Return ``1 message``, ``2 messages``."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def rfc3339(wall: WallTime) -> str | None:
    """Return a wall clock reading as ``2026-01-31T12:00:00.123Z``; None when it is unknown or in no calendar."""
    if wall <= 0:
        return None
    try:
        moment = _EPOCH + timedelta(milliseconds=wall)
    except OverflowError:
        return None
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def shown_time(text: str | None) -> str:
    """Return a time of day and date here; a clock that cannot be right is not quoted."""
    if text is None or text < "2026":
        return "????-??-?? ??:??"
    return f"{datetime.fromisoformat(text).astimezone():%Y-%m-%d %H:%M}"


def fields(*named: tuple[str, object]) -> str:
    """Return names and values in two columns."""
    width = max(len(name) for name, _ in named) + 2
    return "\n".join(f"{name:<{width}}{value}".rstrip() for name, value in named)


HELP_COLUMNS = 100
"""A line of help has no more."""
HELP_RIGHT = 40
"""Where less is left beside what is typed, what it does stands below."""


def help_columns() -> int:
    """Return how wide help may be: as the terminal that standard output goes to, else as lines are read well."""
    return min(HELP_COLUMNS, shutil.get_terminal_size((HELP_COLUMNS, 24)).columns) if os.isatty(1) else HELP_COLUMNS


def table(rows: Sequence[tuple[str, str]], columns: int = HELP_COLUMNS) -> str:
    """Return rows of help: what is typed on the left, what it does on the right."""
    width = max(len(left) for left, _ in rows if len(left) <= 30) + 4
    if columns - width < HELP_RIGHT:
        width = 6
    lines = []
    for left, right in rows:
        text = wrapped(right, columns - width).replace("\n", "\n" + " " * width)
        gap = f"  {left:<{width - 2}}" if len(left) + 3 < width else f"  {left}\n{' ' * width}"
        lines.append(gap + text)
    return "\n".join(lines)


def wrapped(text: str, width: int = HELP_COLUMNS) -> str:
    """Return a text in lines of a width."""
    import textwrap

    return textwrap.fill(text.strip(), width, break_on_hyphens=False)


def say(text: str, limit: int = SHOWN_MAX_CHARS) -> None:
    """Tell the person something that is no data."""
    if sys.stderr is not None:
        with suppress(OSError):  # nobody listens
            print(display(text, limit), file=sys.stderr, flush=True)


def complain(error: QuicprochatError, *, as_json: bool, program: str = "qpc") -> int:
    """Report an error; return the exit code."""
    message = display(str(error))
    if as_json:
        say(json.dumps({"error": {"code": code_of(error), "message": message}}), LOG_MAX_CHARS)
    else:
        say(f"{program}: {message}")
    return exit_code(error)
