"""The prompt on a terminal; pipes, dumb terminals and ``--json`` get the plain one of ``client.repl``.

``words`` says what a typed line means, ``render`` what an event looks like, ``sent`` and ``status`` what is told of our
own messages and of the node; none of them touches a terminal. ``keyboard`` reads, ``terminal`` writes, ``screen``
draws; ``transcript`` brings there what is said, and ``loop`` puts it all together.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from quicprochat.client.stdio import STDIN, STDOUT


def fits(environment: Mapping[str, str]) -> bool:
    """Say whether this process has a terminal that a prompt can be drawn on."""
    if sys.stdin is None or sys.stdout is None or environment.get("TERM", "") in ("", "dumb", "unknown"):
        return False
    return os.isatty(STDIN) and os.isatty(STDOUT)
