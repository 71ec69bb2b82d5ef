"""Keys of a terminal, with pastes told from typing."""

from __future__ import annotations

import asyncio
import codecs
import os
import re
import select
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TextIO

from prompt_toolkit.input.vt100 import Vt100Input
from prompt_toolkit.input.vt100_parser import Vt100Parser
from prompt_toolkit.key_binding import KeyPress
from prompt_toolkit.keys import Keys

READ_BYTES = 4_096
READS_MAX = 64
"""Reads in a row: bounds how long one paste keeps everything else waiting."""
PASTE_GAP_S = 0.05
"""What comes so soon after a part of an unmarked paste belongs to it; a guess well below two key strokes."""

_STEERING = re.compile(r"\x1b\[[0-9;]*[A-Za-z~]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
"""Keys that move and mark, in what turned out to be a paste."""


class Keyboard(Vt100Input):
    """The keyboard. Several lines that came at once are a paste, also from terminals that do not mark pastes."""

    def __init__(self, stdin: TextIO, encoding: str) -> None:
        super().__init__(stdin)
        # Whoever has an ASCII terminal types no other characters; if they do, UTF-8 is the best guess.
        name = "utf-8" if encoding == "ascii" else encoding
        self._decoder = codecs.getincrementaldecoder(name)("replace")
        self._keys: list[KeyPress] = []
        self.vt100_parser = Vt100Parser(self._keys.append)
        self._closed = False
        self._pasting_until = 0.0

    @property
    def closed(self) -> bool:
        return self._closed

    def cooked_mode(self) -> AbstractContextManager[None]:
        """Stay in raw mode while lines are printed: nothing reads keys then, and an echo would spoil the screen."""
        return nullcontext()

    def read_keys(self) -> list[KeyPress]:
        self.vt100_parser.feed(self._decoder.decode(self._read()))
        return self._taken()

    def flush_keys(self) -> list[KeyPress]:
        self.vt100_parser.flush()
        return self._taken()

    def _read(self) -> bytes:
        data = b""
        with suppress(InterruptedError):
            for _ in range(READS_MAX):
                if not select.select([self._fileno], [], [], 0)[0]:
                    break
                try:
                    part = os.read(self._fileno, READ_BYTES)
                except OSError:
                    part = b""  # the terminal has hung up
                if not part:
                    self._closed = True
                    break
                data += part
        return data

    def _taken(self) -> list[KeyPress]:
        keys = list(self._keys)
        self._keys.clear()
        if not keys:
            return keys
        now = asyncio.get_running_loop().time()
        pasted = _goes_on(keys) or (now < self._pasting_until and any(map(_is_text, keys)))
        if pasted or any(map(_is_paste, keys)):
            self._pasting_until = now + PASTE_GAP_S
        if pasted:
            return [KeyPress(Keys.BracketedPaste, _STEERING.sub("", "".join(key.data for key in keys)))]
        return keys


def _goes_on(keys: list[KeyPress]) -> bool:
    """Say whether text came at once with, and after, what ends a line or a paste.

    Nobody types on that fast: it is an unmarked block of lines, or a paste that carries the mark of its own end.
    """
    ends = [n for n, key in enumerate(keys) if _is_enter(key) or _is_paste(key)]
    return bool(ends) and any(map(_is_text, keys[ends[0] + 1 :]))


def _is_paste(key: KeyPress) -> bool:
    return key.key == Keys.BracketedPaste


def _is_enter(key: KeyPress) -> bool:
    return key.key in (Keys.ControlM, Keys.ControlJ)


def _is_text(key: KeyPress) -> bool:
    return not isinstance(key.key, Keys) and len(key.key) == 1
