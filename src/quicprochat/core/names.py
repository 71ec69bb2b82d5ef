"""When two names look the same to a person: a stranger must not pass for a contact by a letter nobody can tell apart.

Names are for people; keys decide. So this errs on the side of "the same": it only refuses a second contact of one look
and raises alarms, and never makes one peer into another.
"""

from __future__ import annotations

import unicodedata

BLANKS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0")
"""Letters and marks that show nothing."""

# Letters that a reader of Latin takes for Latin ones, after case folding; so the shapes of capitals count too. The
# alphabets of our users' neighbours, not the whole of Unicode's list (UTS #39), which the standard library lacks.
_CYRILLIC = dict(zip("авеёкмнорстухѕіїјԁһԛԝѵ", "abeëkmhopctyxsiïjdhqwv", strict=True))
_GREEK = dict(zip("αβεζηικμνορςστυχϲϳ", "abezhikmvopsstyxcj", strict=True))
_LATIN = dict(zip("ıɑɡɩʟ|l10", "iagiiiiio", strict=True))
_SEEN_AS = str.maketrans({**_CYRILLIC, **_GREEK, **_LATIN})


def _shows(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] not in "CZ" and character not in BLANKS and not "\ufe00" <= character <= "\ufe0f"


def skeleton(name: str) -> str:
    """Return what is left of a name for the eye: the same for all names that look alike, "" where nothing shows.

    Compatibility forms, case, spaces and what cannot be seen make no difference (Unicode NFKC, case folding).
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return "".join(filter(_shows, folded)).translate(_SEEN_AS)


def look_alike(one: str, other: str) -> bool:
    """Say whether two names could be taken for each other; a name that shows nothing is like no other."""
    seen = skeleton(one)
    return bool(seen) and seen == skeleton(other)
