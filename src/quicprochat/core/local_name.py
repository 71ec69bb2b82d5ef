"""Names at a home server: what one may be. First come, bound to a key for good; the server's word, not the key's."""

from __future__ import annotations

import unicodedata

from quicprochat.core.errors import LocalError
from quicprochat.core.names import skeleton

NAME_MIN_CHARS, NAME_MAX_CHARS = 2, 32
NAME_MAX_BYTES = 64
"""As much as a peer record has room for."""
KEY_PREFIX_DIGITS = 8
"""From this length on hexadecimal digits may be the beginning of a key, and a person means one or the other."""

RESERVED = frozenset((
    "abuse", "admin", "administrator", "all", "anonymous", "anybody", "channel", "everybody", "everyone",
    "help", "here", "hostmaster", "info", "localhost", "me", "mesh", "mod", "moderator", "myself", "no-reply",
    "nobody", "noreply", "null", "official", "operator", "owner", "postmaster", "qpc", "quicprochat", "relay",
    "root", "security", "self", "server", "somebody", "staff", "support", "system", "team", "unknown",
    "webmaster", "you",
))  # fmt: skip
"""Names that a person would take for the server itself, its operator, or nobody."""

_RESERVED_LOOKS = frozenset(map(skeleton, RESERVED))
_BETWEEN = frozenset("-._")
_EAST_ASIAN = frozenset({"CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "KATAKANA-HIRAGANA"})


def local_name(text: str) -> str:
    """Return a name in the form it is kept in: Unicode NFKC, case folded. Raises: LocalError when it can be none."""
    if len(text) > 4 * NAME_MAX_CHARS:
        raise LocalError(f"a name has at most {NAME_MAX_CHARS} characters", code="too_long")
    name = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    if not NAME_MIN_CHARS <= len(name) <= NAME_MAX_CHARS or len(name.encode("utf-8", "replace")) > NAME_MAX_BYTES:
        raise LocalError(
            f"a name has {NAME_MIN_CHARS} to {NAME_MAX_CHARS} characters, and at most {NAME_MAX_BYTES} bytes as UTF-8",
            code="too_long",
        )
    if not _well_formed(name):
        raise LocalError("a name is made of letters and digits; one of - . _ may stand between two of them")
    if len(_alphabets(name)) > 1:
        raise LocalError("a name has the letters of one alphabet only: mixed ones pass for others")
    if len(name) >= KEY_PREFIX_DIGITS and not set(name) - set("0123456789abcdef"):
        raise LocalError("this name reads like the beginning of a key; choose another")
    if skeleton(name) in _RESERVED_LOOKS:
        raise LocalError("this name is reserved, or looks like one that is; choose another", code="policy")
    return name


def _well_formed(name: str) -> bool:
    if unicodedata.category(name[0])[0] == "M":
        return False
    joined = False  # nothing stands between yet
    for character in (*name, "-"):
        if character in _BETWEEN:
            if not joined:
                return False
            joined = False
        elif unicodedata.category(character) in ("Ll", "Lo", "Lm", "Mn", "Mc", "Nd"):
            joined = True
        else:
            return False
    return name[-1] not in _BETWEEN


def _alphabets(name: str) -> set[str]:
    """Return the alphabets of a name's letters; the scripts that are written together count as one."""
    found = {unicodedata.name(letter, "?").split(" ")[0] for letter in name if unicodedata.category(letter)[0] == "L"}
    return (found - _EAST_ASIAN) | ({"CJK"} if found & _EAST_ASIAN else set())
