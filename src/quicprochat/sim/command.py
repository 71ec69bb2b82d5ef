"""``qpc sim``: a simulation by its name, its report as text. Each kind of simulation is one entry of ``_KINDS``."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from quicprochat.core.errors import LocalError

Report = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Kind:
    """``module`` has ``run(file, options) -> Report`` and ``text(report) -> str``; loaded when it is asked for.

    ``options`` are the command's options that mean something to it.
    """

    module: str
    options: frozenset[str]


_KINDS = {
    "trace": _Kind(
        "quicprochat.sim.trace",
        frozenset({"messages", "ttl", "router", "against", "bytes_per_s", "store", "seed", "plot"}),
    ),
    "topology": _Kind("quicprochat.sim.topology", frozenset({"pairs", "cut", "window", "seed", "plot"})),
    "topology --channel": _Kind(
        "quicprochat.sim.spreading", frozenset({"channel", "subscribers", "posts", "window", "seed"})
    ),
}


def simulate(args: Mapping[str, Any], *, as_json: bool) -> str:
    """Run what the arguments ask for and return its report. Raises: LocalError, UnavailableError."""
    named = "topology --channel" if args["kind"] == "topology" and args.get("channel") else args["kind"]
    kind = _KINDS[named]
    options = {key: value for key, value in args.items() if key not in ("kind", "file")}
    for key in options:
        if key not in kind.options:
            raise LocalError(f"--{key.replace('_', '-')} means nothing to qpc sim {named}")
    module = import_module(kind.module)
    run: Callable[[str, Mapping[str, Any]], Report] = module.run
    report = run(args["file"], options)
    return f"{json.dumps(report)}\n" if as_json else module.text(report)
