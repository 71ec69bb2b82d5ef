"""The screen: an input line with live rows above and a status line below; all else goes up into the terminal's history.

Lines to show wait in a bounded queue and are written in batches above the input line, at most :data:`BATCHES_S` times a
second, each only once the terminal has taken the one before. So typing stays smooth however much arrives, and whoever
fills the queue faster than the terminal empties it has to wait.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from prompt_toolkit.application import Application, in_terminal
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.data_structures import Size
from prompt_toolkit.filters import Condition, has_focus, is_done
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.layout import (
    BufferControl,
    ConditionalContainer,
    Dimension,
    Float,
    FloatContainer,
    FormattedTextControl,
    HSplit,
    Layout,
    Window,
)
from prompt_toolkit.layout.menus import CompletionsMenu
from prompt_toolkit.layout.processors import HighlightIncrementalSearchProcessor, HighlightSelectionProcessor
from prompt_toolkit.output import ColorDepth
from prompt_toolkit.output.vt100 import Vt100_Output
from prompt_toolkit.renderer import print_formatted_text
from prompt_toolkit.selection import SelectionState
from prompt_toolkit.styles import Style
from prompt_toolkit.widgets import SearchToolbar

from quicprochat.client.output import plural
from quicprochat.client.prompt.completion import LineCompleter
from quicprochat.client.prompt.history import HomeHistory
from quicprochat.client.prompt.keyboard import Keyboard
from quicprochat.client.prompt.render import STYLES, alarm, note, talk
from quicprochat.client.prompt.terminal import Terminal, size_of
from quicprochat.core.seal import TEXT_MAX_BYTES

if TYPE_CHECKING:
    from prompt_toolkit.formatted_text import StyleAndTextTuples as Fragments

BATCHES_S = 20
BATCH_CHARS = 32_768
"""Text written in one batch, about: bounds how long a key waits for the screen."""
QUEUE_MAX = 512
"""Lines that wait for the terminal."""
INPUT_ROWS = 8
"""Rows that a pasted block takes at most; it scrolls inside."""
MENU_ROWS = 8
PASTE_MAX_CHARS = 2 * TEXT_MAX_BYTES
LEAVE_S = 1.0
"""How long a terminal that takes nothing may hold up leaving."""


class Screen:
    """Draws until :meth:`leave`, the end of input, or the terminal's.

    ``accept`` is given each line; ``interrupt`` says whether there was something to stop; ``live`` and ``status`` give
    what stands above and below the input line.
    """

    def __init__(
        self,
        terminal: Terminal,
        stdin: TextIO,
        *,
        completer: LineCompleter,
        history: HomeHistory,
        accept: Callable[[str], None],
        interrupt: Callable[[], bool],
        prompt: Callable[[], str],
        live: Callable[[int], Fragments],
        status: Callable[[int, int, int], Fragments],
        color_depth: ColorDepth | None = None,
        term: str | None = None,
    ) -> None:
        self._terminal = terminal
        self._output = Vt100_Output(
            terminal,  # type: ignore[arg-type]  # it needs write, flush, fileno and isatty of a TextIO
            self._size,
            term=term,
            default_color_depth=color_depth,
            # Where the cursor is need not be asked for: it costs a round trip for each batch.
            enable_cpr=False,
        )
        self._style = Style.from_dict(STYLES)
        self._queue: deque[tuple[StyleAndTextTuples, Callable[[], None] | None]] = deque()
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._room.set()
        self._accept = accept
        self._interrupt = interrupt
        self._leaving = self._left = False
        self.input = Buffer(
            completer=completer,
            history=history,
            complete_while_typing=False,
            enable_history_search=True,
            multiline=False,
            accept_handler=self._entered,
        )
        self._app: Application[None] = Application(
            layout=self._layout(prompt, live, status),
            key_bindings=self._keys(),
            style=self._style,
            erase_when_done=True,
            include_default_pygments_style=False,
            input=Keyboard(stdin, terminal.encoding),
            output=self._output,
            color_depth=color_depth,
            terminal_size_polling_interval=None,
        )
        self._app.ttimeoutlen = 0.05
        terminal.gone = self.leave
        terminal.caught_up = self._draw_anew

    def _size(self) -> Size:
        rows, columns = size_of(self._terminal.fileno())
        return Size(rows=rows, columns=columns)

    @property
    def width(self) -> int:
        """The terminal's columns."""
        return self._size().columns

    @property
    def behind(self) -> int:
        """Lines that wait for the terminal."""
        return len(self._queue)

    # --- life

    async def run(self) -> None:
        """Draw and read keys until the end."""
        showing = asyncio.create_task(self._show())
        try:
            await self._app.run_async(
                pre_run=lambda: self._app.exit() if self._left else None,
                handle_sigint=False,
                set_exception_handler=False,
            )
        except EOFError:
            pass  # the terminal's input has ended
        finally:
            try:
                async with asyncio.timeout(LEAVE_S):
                    await self._idle.wait()
                    await self._terminal.drained()
            except TimeoutError:
                pass
            finally:
                showing.cancel()
                self._terminal.close()
                await asyncio.wait((showing,))

    def leave(self) -> None:
        """End :meth:`run`, also when it has not begun yet."""
        self._left = True
        if self._app.is_running and not self._app.is_done:
            self._app.exit()

    def refresh(self) -> None:
        """Draw the live rows and the status line again soon."""
        if not self._app.invalidated:
            self._app.invalidate()

    def _draw_anew(self) -> None:
        if self._app.is_running:
            self._app.renderer.erase()
            self._app.invalidate()

    # --- lines above the input

    def show(self, fragments: Fragments, written: Callable[[], None] | None = None) -> None:
        """Show a line, that ends in a newline, soon; ``written`` is called once the system has taken it."""
        self._queue.append((fragments, written))
        self._idle.clear()
        self._wake.set()
        if len(self._queue) >= QUEUE_MAX:
            self._room.clear()

    def _note(self, text: str) -> None:
        self.show(note(text, self.width))

    async def room(self) -> None:
        """Wait until the queue has room."""
        await self._room.wait()

    @property
    def encoding(self) -> str:
        """What the terminal understands."""
        return self._terminal.encoding

    async def write(self, text: str, *, headline: str = "", ring: bool = False) -> None:
        """Show the answer of a command."""
        await self.room()
        self.show([*alarm(headline, self.width), *talk(text, self.width)], self.ring if ring else None)

    def ring(self) -> None:
        """Sound the terminal's bell."""
        self._output.bell()
        self._output.flush()

    async def _show(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                begun = clock()
                batch = self._batch()
                await self._print([part for fragments, _ in batch for part in fragments])
                await self._terminal.drained()
                if not self._terminal.hung_up:
                    for _, written in batch:
                        if written is not None:
                            written()
                if not self._queue:
                    self._idle.set()
                await asyncio.sleep(max(0.0, begun + 1 / BATCHES_S - clock()))

    def _batch(self) -> list[tuple[StyleAndTextTuples, Callable[[], None] | None]]:
        batch = []
        size = 0
        while self._queue and size < BATCH_CHARS:
            batch.append(self._queue.popleft())
            size += sum(len(part[1]) for part in batch[-1][0])
        if len(self._queue) < QUEUE_MAX:
            self._room.set()
        return batch

    async def _print(self, fragments: StyleAndTextTuples) -> None:
        with self._terminal.gathered():
            async with in_terminal():
                print_formatted_text(self._output, fragments, self._style, color_depth=self._app.color_depth)
                self._output.flush()

    # --- what is typed

    def _entered(self, buffer: Buffer) -> bool:
        self._accept(buffer.text)
        return False

    def put_back(self, text: str) -> None:
        """Put a line that was refused back into an empty input, marked: what is typed next takes its place.

        A key that moves the cursor, or Enter, takes the line up again.
        """
        if not self.input.text:
            self.input.insert_text(text)
            self.input.selection_state = SelectionState(0)
            self.input.selection_state.enter_shift_mode()

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()
        typing = has_focus(self.input)

        @keys.add("enter", filter=typing)
        @keys.add("c-j", filter=typing)
        def _(event: KeyPressEvent) -> None:
            state = self.input.complete_state
            if state is not None and state.current_completion is not None:
                self.input.complete_state = None  # what was chosen stands; the next Enter sends it
                return
            self.input.validate_and_handle()

        @keys.add("escape", "enter", filter=typing)
        def _(event: KeyPressEvent) -> None:
            self.input.exit_selection()
            self.input.insert_text("\n")

        @keys.add("c-i", filter=typing)
        def _(event: KeyPressEvent) -> None:
            self.input.exit_selection()
            if self.input.complete_state is not None:
                self.input.complete_next()
            else:
                self.input.start_completion(insert_common_part=True)

        @keys.add("c-c", filter=typing)
        def _(event: KeyPressEvent) -> None:
            if self.input.text:
                self.input.reset()
            elif not self._interrupt():
                self._note("to leave: /quit, or Ctrl-D on an empty line")

        @keys.add("c-d", filter=typing & Condition(lambda: not self.input.text))
        def _(event: KeyPressEvent) -> None:
            if self._leaving:
                self.leave()
            self._leaving = True
            self._accept("/quit")  # after what was typed before it; once more, and at once

        @keys.add("c-z", filter=typing)
        def _(event: KeyPressEvent) -> None:
            self._note("a stopped node would lose its links; /quit leaves, and qpc daemon runs a node alone")

        @keys.add(Keys.BracketedPaste, filter=typing)
        def _(event: KeyPressEvent) -> None:
            self._pasted(event.data)

        return keys

    def _pasted(self, text: str) -> None:
        """Take a block in as it is; nothing of it is carried out before Enter."""
        text = text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n")
        if len(text) + len(self.input.text) > PASTE_MAX_CHARS:
            size = plural(len(text), "character")
            self._note(f"this block has {size}; that is too long for one message, and nothing was taken")
            return
        if self.input.selection_state is not None:
            self.input.cut_selection()
        self.input.insert_text(text)

    @property
    def block(self) -> int:
        """Lines of what stands in the input."""
        return self.input.document.line_count

    # --- layout

    def _layout(
        self,
        prompt: Callable[[], str],
        live: Callable[[int], Fragments],
        status: Callable[[int, int, int], Fragments],
    ) -> Layout:
        search = SearchToolbar(ignore_case=True)

        def before(line: int, wrapped: int) -> StyleAndTextTuples:
            text = prompt()
            return [("", text)] if line == 0 and wrapped == 0 else [("", "| ".rjust(len(text)) if not wrapped else "")]

        def rows() -> Dimension:
            # Room for the menu, so that it need not cover what is typed.
            wanted = MENU_ROWS + 1 if self.input.complete_state is not None else 1
            return Dimension(min=wanted, max=max(wanted, INPUT_ROWS))

        pending = Window(FormattedTextControl(lambda: live(self.width)), dont_extend_height=True, wrap_lines=False)
        typing = Window(
            BufferControl(
                self.input,
                search_buffer_control=search.control,
                preview_search=True,
                input_processors=[HighlightIncrementalSearchProcessor(), HighlightSelectionProcessor()],
                include_default_input_processors=False,
            ),
            height=rows,
            get_line_prefix=before,
            wrap_lines=True,
            dont_extend_height=True,
        )
        bar = Window(
            FormattedTextControl(lambda: status(self.behind, self.block, self.width)),
            height=1,
            style="class:status",
            wrap_lines=False,
        )
        has_live = Condition(lambda: bool(live(self.width)))
        body = HSplit([ConditionalContainer(pending, has_live & ~is_done), typing, search, bar])
        menu = Float(CompletionsMenu(max_height=MENU_ROWS, scroll_offset=1), xcursor=True, ycursor=True)
        return Layout(FloatContainer(body, [menu]), focused_element=typing)
