"""What Tab offers: commands with and without the word mesh, their options, peers, topics and messages of ours."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

from quicprochat.client.catalogue import COMMANDS, Command, Value
from quicprochat.client.output import display_line
from quicprochat.client.prompt.words import HABITS, names, quoted, summary
from quicprochat.core.homes import domain_name

_LAST = re.compile(r'("[^"]*|\S*)$')
_TOKENS = re.compile(r'"[^"]*"?|\S+')

OFFERED_MAX = 200
"""A menu is to be looked through by a person."""
HEARD_MAX = 1_000
"""Peers and topics remembered for completion from lines that arrived; the last ones."""
SHOWN_DIGITS = 16
WORDS_CHARS = 32
"""Of a message's text, beside its id."""


@dataclass(slots=True)
class Known:
    """Whom and what can be named. ``names`` maps a contact's name to a note; ``keys`` strangers' keys to one."""

    names: dict[str, str] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    topics: dict[str, str] = field(default_factory=dict)
    served: dict[str, str] = field(default_factory=dict)
    """Names at domains, as in ada@village.example, that were typed here and meant somebody."""
    domains: set[str] = field(default_factory=set)
    messages: dict[str, str] = field(default_factory=dict)
    """Ids of our own messages, newest last."""

    def learn_peers(self, peers: Iterable[dict[str, object]]) -> None:
        """Take the answer of ``peers``; who wrote without being in it stays."""
        contacts: dict[str, str] = {}
        domains: set[str] = set()
        for peer in peers:
            if (domain := domain_name(str(peer.get("domain") or ""))) and len(domains) < HEARD_MAX:
                domains.add(domain)
            key, name = str(peer["public_key"]), str(peer["name"])
            notes = ", ".join(word for word in ("linked", "blocked") if peer.get(word))
            if peer.get("contact"):
                contacts[name] = notes or "contact"
                self.keys.pop(key, None)
            else:
                self._heard(self.keys, key, claim(name, notes))
        self.names, self.domains = contacts, domains

    def wrote(self, item: dict[str, object]) -> None:
        """Take the author of a line that arrived."""
        key, name = str(item["from"]), str(item.get("name") or "")
        if item.get("channel") is not None:
            self.topic(str(item.get("topic") or item["channel"]))
        if item.get("request") or not name:
            self._heard(self.keys, key, claim(name, "wrote to you"))

    def lives(self, name: str) -> None:
        """Note a name at a domain."""
        self._heard(self.served, name, "at that domain")

    def topic(self, topic: str) -> None:
        """Note a topic."""
        self._heard(self.topics, topic, "channel")

    def learn_topics(self, topics: Iterable[str]) -> None:
        """These are the channels we are in."""
        self.topics = {topic: "channel" for topic in topics}

    def sent(self, id: str, to: str, text: str) -> None:
        """Note a message of ours. ``to`` is safe for a terminal."""
        self._heard(self.messages, id, f"to {to}: {display_line(text, WORDS_CHARS)}")

    @staticmethod
    def _heard(table: dict[str, str], key: str, note: str) -> None:
        table.pop(key, None)
        table[key] = note
        if len(table) > HEARD_MAX:
            del table[next(iter(table))]


def claim(name: str, note: str) -> str:
    """Return what a stranger's own name is worth."""
    said = f'calls itself "{display_line(name, 32)}"' if name else "no name"
    return f"{said}, {note}" if note else said


class LineCompleter(Completer):
    """Completes the line up to the cursor."""

    def __init__(self, known: Known) -> None:
        self._known = known

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
        before = document.text_before_cursor
        if not before.startswith("/") or "\n" in before:
            return
        found = _LAST.search(before)
        assert found is not None
        typed = found[1]
        words = _TOKENS.findall(before[: found.start()])
        for n, (text, note) in enumerate(self._offers(words, typed)):
            if n == OFFERED_MAX:
                return
            yield Completion(text, -len(typed), display=display_line(text.strip(), 40), display_meta=note)

    def _offers(self, words: list[str], typed: str) -> Iterator[tuple[str, str]]:
        if not words:
            yield from self._commands(typed.removeprefix("/"), "/", names())
            return
        name = words[0][1:]
        if name == "mesh":
            if len(words) == 1:
                yield from self._commands(typed, "", sorted(n for n, c in COMMANDS.items() if c.mesh))
                return
            words = words[1:]
            name = words[0]
        if name in ("help", "?"):
            yield from self._commands(typed, "", names())
            return
        if name == "query":
            yield from self._peers(typed) if len(words) == 1 else ()
            return
        yield from self._arguments(HABITS[name].means if name in HABITS else name, words[1:], typed)

    @staticmethod
    def _commands(typed: str, start: str, offered: list[str]) -> Iterator[tuple[str, str]]:
        for name in offered:
            if name.startswith(typed):
                yield f"{start}{name} ", summary(name)

    def _arguments(self, name: str, words: list[str], typed: str) -> Iterator[tuple[str, str]]:
        command = COMMANDS.get(name)
        if command is None:
            return
        place = _place(command, words)
        if place is None:
            return  # within a text
        if isinstance(place, str):
            yield from self._value(command, place, typed)
            return
        if typed.startswith("-"):
            given = {word for word in words if word.startswith("--")}
            for option in command.options:
                if option.flags[-1].startswith(typed) and option.flags[-1] not in given:
                    yield f"{option.flags[-1]} ", option.help
        elif place < len(command.words):
            word = command.words[place]
            if word.key == "peer":
                yield from self._peers(typed)
            elif word.key == "topic":
                yield from self._topics(typed)
            elif word.key == "id":
                yield from self._messages(typed)
            for choice in word.choices:
                if choice.startswith(typed):
                    yield f"{choice} ", ""

    def _value(self, command: Command, flag: str, typed: str) -> Iterator[tuple[str, str]]:
        option = next(option for option in command.options if flag in option.flags)
        if option.key in ("peer", "without"):
            yield from self._peers(typed)
        for choice in option.choices:
            if choice.startswith(typed):
                yield f"{choice} ", option.help

    def _peers(self, typed: str) -> Iterator[tuple[str, str]]:
        start = typed.removeprefix('"').casefold()
        for name, note in sorted(self._known.names.items()):
            if name.casefold().startswith(start):
                yield f"{quoted(name)} ", note
        for name, note in reversed(list(self._known.served.items())):
            if name.casefold().startswith(start):
                yield f"{name} ", note
        who, at, beginning = start.partition("@")
        for domain in sorted(self._known.domains if at else ()):
            if domain.startswith(beginning) and f"{who}@{domain}" not in self._known.served:
                yield f"{who}@{domain} ", "a domain that is known"
        for key, note in reversed(list(self._known.keys.items())):
            if start and (key.startswith(start) or f'"{start}' in note.casefold()):
                yield f"{key[:SHOWN_DIGITS]} ", note

    def _messages(self, typed: str) -> Iterator[tuple[str, str]]:
        for id, note in reversed(list(self._known.messages.items())):
            if id.startswith(typed.lower()):
                yield f"{id} ", note

    def _topics(self, typed: str) -> Iterator[tuple[str, str]]:
        for topic, note in sorted(self._known.topics.items()):
            if topic.startswith(typed.removeprefix('"').removeprefix("#")):
                yield f"{quoted(topic)} ", note


def _place(command: Command, words: list[str]) -> int | str | None:
    """Return which argument comes next: its number, the option whose value it is, or None within a text."""
    values = {flag for option in command.options if option.value is not Value.FLAG for flag in option.flags}
    place = 0
    option = ""
    for word in words:
        if option:
            option = ""
        elif word in values:
            option = word
        elif not word.startswith("--"):
            place += 1
    if option:
        return option
    fixed = sum(not word.rest for word in command.words)
    return None if place > fixed or (place == fixed < len(command.words) and bool(words)) else place
