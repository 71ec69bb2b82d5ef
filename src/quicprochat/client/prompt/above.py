"""Standard error and the log while the prompt is drawn: what is said there stands above the input line, not in it."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from quicprochat.client.prompt import render
from quicprochat.client.prompt.screen import Screen


class _Above(io.TextIOBase):
    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._rest = ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._screen.show(render.note(line, self._screen.width))
        return len(text)


@contextmanager
def talk_above(screen: Screen) -> Iterator[None]:
    """Send standard error and the program's log to the screen."""
    above = _Above(screen)
    handlers = [h for h in logging.getLogger("quicprochat").handlers if isinstance(h, logging.StreamHandler)]
    before = [handler.setStream(above) for handler in handlers]
    try:
        with contextlib.redirect_stderr(above):
            yield
    finally:
        for handler, stream in zip(handlers, before, strict=True):
            if stream is not None:
                handler.setStream(stream)
