"""Names of domains, in one spelling: what stands behind the ``@``, in a certificate and in a configuration."""

from __future__ import annotations

import re

from quicprochat.core.errors import LocalError

DOMAIN_MAX_CHARS = 253
"""RFC 1035 §2.3.4, as text without the dot at its end."""

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def is_domain(text: str) -> bool:
    """Say whether this is a domain in its one spelling: letters, digits and hyphens, lower case (RFC 1123 §2.1).

    A name whose last label is a number is none: it would be taken for an IP address. Others are written as ``xn--…``.
    """
    labels = text.split(".")
    return len(text) <= DOMAIN_MAX_CHARS and all(map(_LABEL.fullmatch, labels)) and not labels[-1].isdigit()


def parse_domain(text: str) -> str:
    """Return a domain that a person has written, in its one spelling. Raises: LocalError."""
    # Not lower() alone: it makes a "k" of the Kelvin sign.
    name = text.lower().removesuffix(".") if text.isascii() else ""
    if not is_domain(name):
        raise LocalError(f"{text[:60]!r} is no domain: it is written as in example.net (others as xn--…)")
    return name
