"""Whether the extra ``mesh`` is installed."""

from __future__ import annotations

from importlib.util import find_spec


def mesh_installed() -> bool:
    """Say whether links over iroh are possible in this installation; imports nothing."""
    try:
        return find_spec("iroh") is not None
    except (ImportError, ValueError):
        return False
