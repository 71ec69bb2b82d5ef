"""docs/test-vectors.json as the tests read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

FILE = Path(__file__).resolve().parents[2] / "docs" / "test-vectors.json"
Case = dict[str, Any]


def unhex(value: Any) -> Any:
    """Turn hexadecimal fields back into bytes, by their shape."""
    if isinstance(value, dict):
        return {name: item if name in TEXTS else unhex(item) for name, item in value.items()}
    if isinstance(value, list):
        return [unhex(item) for item in value]
    return bytes.fromhex(value) if isinstance(value, str) else value


TEXTS = {
    "about", "label", "why", "name", "fingerprint", "digits", "ticket", "relay", "addresses", "domain", "text", "topic",
    "protection", "format", "kind", "topics_refused", "says", "passphrase",
    "invite",
}  # fmt: skip

VECTORS: Case = unhex(json.loads(FILE.read_text("utf-8")))
BY_NAME = {key["name"]: key for key in VECTORS["keys"]}


def each(section: str) -> pytest.MarkDecorator:
    """Run a test for every case of a section."""

    def param(number: int, case: Case) -> Any:
        return pytest.param(case, id=f"{number} {case.get('name', case.get('why', case.get('label', '')))}")

    return pytest.mark.parametrize("case", [param(n, case) for n, case in enumerate(VECTORS[section])])
