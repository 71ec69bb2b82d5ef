"""Moments as a person types them: how long ago, a date, or a date and a time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from quicprochat.console.text import rfc3339
from quicprochat.core.time import SECOND_MS, WallTime

_AGO = re.compile(r"(?:(\d{1,6})w)?(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,9})s)?", re.ASCII)
_UNITS_S = (7 * 86_400, 86_400, 3_600, 60, 1)
_DATED = re.compile(r"\d{4}-\d{2}-\d{2}(?:[T ].+)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Ago:
    """So many seconds before now."""

    seconds: int


def read_when(text: str) -> Ago | WallTime | None:
    """Return what ``2d``, ``1h30m``, ``2026-11-23`` or ``2026-11-23T18:30:00Z`` means; None for what means nothing.

    Without a zone it is local time.
    """
    ago = _AGO.fullmatch(text)
    if ago is not None and text:
        return Ago(sum(int(n or 0) * unit for n, unit in zip(ago.groups(), _UNITS_S, strict=True)))
    if _DATED.fullmatch(text) is None:
        return None
    try:
        moment = datetime.fromisoformat(text).astimezone(UTC)
        return WallTime(max(0, int(moment.timestamp() * SECOND_MS)))
    except (ValueError, OverflowError, OSError):
        return None


def written(text: str) -> str | None:
    """Return a moment as it means the same in whatever zone it is read, None for what means nothing."""
    found = read_when(text)
    return text if isinstance(found, Ago) else None if found is None else rfc3339(WallTime(max(1, found)))


def moment(text: str, now: WallTime) -> WallTime | None:
    """Return the moment that a text means, None for what means nothing."""
    found = read_when(text)
    return WallTime(max(0, now - found.seconds * SECOND_MS)) if isinstance(found, Ago) else found
