"""What a line typed at the prompt means: commands, the habits of IRC, and text for the current conversation."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, replace
from enum import Enum, auto

from quicprochat.client.catalogue import COMMANDS
from quicprochat.client.grammar import Request, parse_line
from quicprochat.client.help import help_text
from quicprochat.console.text import HELP_COLUMNS, table
from quicprochat.core.channel import check_topic
from quicprochat.core.errors import LocalError

_WORD = re.compile(r"/(\S*)\s*")
_FIRST = re.compile(r'\s*(?:"([^"]*)"|(\S+))')


class Kind(Enum):
    """Whom a conversation is with."""

    PEER = auto()
    CHANNEL = auto()


@dataclass(frozen=True, slots=True)
class Conversation:
    """Where plain lines go. ``target`` is a peer's key or a topic, ``name`` how it is shown (safe for a terminal)."""

    kind: Kind
    target: str
    name: str


@dataclass(frozen=True, slots=True)
class Habit:
    """A word that people bring along from other chats; ``means`` is the command it stands for, if it is one."""

    usage: str
    summary: str
    means: str = ""


HABITS = {
    "msg": Habit("/msg <peer> <text>", "send a message and stay in the current conversation", "send"),
    "query": Habit("/query [<peer> [<text>]]", "talk to a peer: plain lines go there from now on; alone, stop that"),
    "join": Habit("/join <topic>", "talk in a channel; it asks before it joins one that is none of yours", "subscribe"),
    "part": Habit("/part", "leave the current conversation; a channel stays subscribed"),
    "who": Habit("/who", "list contacts and peers met or heard of", "peers"),
    "names": Habit("/names", "list who is in the current channel; elsewhere the same as /who", "peers"),
    "whois": Habit("/whois [<peer>]", "show a peer's key and the digits that you two compare", "verify"),
    "nick": Habit("/nick <name>", "choose what you call yourself; peers learn it", "identity"),
    "quit": Habit("/quit", "leave; Ctrl-D on an empty line does the same"),
    "help": Habit("/help [<command>]", "show everything there is, or how one command is used"),
}
ON_A_CHANNEL = frozenset({"history", "invite", "members", "mute", "unmute"})
"""Commands that mean the current channel where no topic is given."""
_OTHER = {"exit": "quit", "close": "part", "leave": "part", "q": "query", "?": "help"}

KEYS = (
    ("Tab", "complete a command, an option, a peer or a topic"),
    ("Up, Ctrl-R", "earlier lines; search them"),
    ("Alt-Enter", "a new line within a message"),
    ("Ctrl-C", "drop the line; stop waiting for a command"),
    ("Ctrl-L", "clear the screen"),
)


@dataclass(frozen=True, slots=True)
class Run:
    """Carry out a command."""

    request: Request


@dataclass(frozen=True, slots=True)
class Say:
    """Send a text; ``moves`` makes the peer the current conversation first. ``to`` is as typed, or a key."""

    to: str
    text: str
    moves: bool = False


@dataclass(frozen=True, slots=True)
class Post:
    """Post a text to a channel."""

    request: Request


@dataclass(frozen=True, slots=True)
class Join:
    """Subscribe, and make the channel the current conversation."""

    request: Request
    topic: str


@dataclass(frozen=True, slots=True)
class Leave:
    """Have no current conversation."""


@dataclass(frozen=True, slots=True)
class Help:
    """Show a text of ours."""

    text: str


@dataclass(frozen=True, slots=True)
class Quit:
    """End."""


Meaning = Run | Say | Post | Join | Leave | Help | Quit


def understand(line: str, current: Conversation | None, columns: int = HELP_COLUMNS) -> Meaning | None:
    """Return what a line, or a pasted block of lines, means; None for an empty one. Raises: LocalError.

    ``columns`` is for the help, which is shown at once.
    """
    line = line.rstrip()
    if not line:
        return None
    if not line.startswith("/") or line.startswith("//"):
        return _plain(line.removeprefix("/") if line.startswith("//") else line, current)
    found = _WORD.match(line)
    assert found is not None
    word, rest = found[1], line[found.end() :]
    word = _OTHER.get(word, word)
    if "\n" in line and not _ends_in_text(word, rest):
        raise LocalError(f"a command has one line, and this has {line.count(chr(10)) + 1}; nothing was done")
    match word:
        case "quit":
            return Quit()
        case "help":
            return Help(_help(rest, columns))
        case "query" | "msg":
            return _talk(word, rest)
        case "part":
            return Leave()
        case "join":
            return _join(rest)
        case "nick":
            if not rest.strip():
                raise LocalError(f"write: {HABITS['nick'].usage}")
            name = rest.strip()
            return Run(Request("identity", {"name": "" if name == '""' else _unquoted(name)}))
        case _ if word in {"mesh", *ON_A_CHANNEL} and current is not None and current.kind is Kind.CHANNEL:
            if (request := _here(word, rest, current.target)) is not None:
                return Run(request)
        case "names" if not rest.strip() and current is not None and current.kind is Kind.CHANNEL:
            return Run(Request("members", {"topic": current.target}, mesh=True))
        case "whois" if not rest.strip() and current is not None and current.kind is Kind.PEER:
            return Run(Request("verify", {"peer": current.target}))
        case "whois" if not rest.strip():
            raise LocalError("who is who? Write: /whois <peer>, or /whois alone while you talk to one")
    return _command(word, rest, columns)


def moves(line: str) -> bool:
    """Say whether a line is meant to change the current conversation; when it fails, no plain line may follow there."""
    found = _WORD.match(line)
    return found is not None and _OTHER.get(found[1], found[1]) in ("join", "query")


def leaves(request: Request, current: Conversation | None) -> bool:
    """Say whether a command that was carried out ended the current conversation: its channel was left for good."""
    if request.command != "unsubscribe" or current is None or current.kind is not Kind.CHANNEL:
        return False
    return check_topic(request.args["topic"]) == current.target


def is_yes(line: str) -> bool:
    """Say whether a line answers a question with yes; whatever is unclear does not."""
    return line.strip().lower() in ("y", "yes")


def _plain(text: str, current: Conversation | None) -> Meaning:
    if current is None:
        raise LocalError(
            "this line goes to nobody: choose with /query <peer> or /join <topic>, or write /msg <peer> <text>"
        )
    if current.kind is Kind.PEER:
        return Say(current.target, text)
    # Not read as a command: who talks about --emergency raises no alarm.
    return Post(Request("broadcast", {"topic": current.target, "text": text.strip()}, mesh=True))


def _talk(word: str, rest: str) -> Meaning:
    peer, text = first_word(rest)
    if not peer:
        if word == "query":
            return Leave()
        raise LocalError(f"write: {HABITS['msg'].usage}")
    if not text and word == "msg":
        raise LocalError(f"there is no text to send; write: {HABITS['msg'].usage}, or /query {peer} to talk there")
    return Say(peer, text, moves=word == "query")


def _join(rest: str) -> Meaning:
    request = _parsed("mesh subscribe ", rest)
    topic = next((value for key, value in request.args.items() if key in ("topic", "channel")), None)
    return Join(request, str(topic or first_word(rest)[0]))


def _here(word: str, rest: str, topic: str) -> Request | None:
    """Return what a command on a channel means where its topic was left out; None where it was not, or it is another.

    Whether it was is tried: options may stand before a topic.
    """
    name, rest = first_word(rest) if word == "mesh" else (word, rest)
    if name not in ON_A_CHANNEL:
        return None
    try:
        request = _parsed(f"mesh {name} {quoted(topic)} ", rest)
    except LocalError:
        return None
    return request if request.command == name else None


def _command(word: str, rest: str, columns: int) -> Meaning:
    name = HABITS[word].means if word in HABITS else word
    if name == "mesh":
        inner = first_word(rest)[0]
        if inner and inner not in COMMANDS and inner != "help":
            raise LocalError(_unknown(inner))
        request = _parsed("mesh ", rest)
    elif name in COMMANDS:
        # Nobody is sent away for want of the word mesh.
        try:
            request = _parsed(f"{'' if COMMANDS[name].plain else 'mesh '}{name} ", rest)
        except LocalError as error:
            raise LocalError(str(error).replace(f"/mesh {name}", f"/{name}"), code=error.code) from None
    else:
        raise LocalError(_unknown(word))
    if request.command in ("send", "broadcast") and "text" in request.args:
        request = replace(request, args={**request.args, "text": _unquoted(request.args["text"])})
    match request.command:
        case "help":
            return Help(help_text(request.args["about"], slash=True, columns=columns))
        case "send" if set(request.args) == {"peer", "text"}:
            return Say(request.args["peer"], request.args["text"])
        case "send" if "text" not in request.args:
            raise LocalError("there is no text to send; write: /msg <peer> <text>")
        case "listen":
            raise LocalError("what arrives is shown here anyway; older messages: /inbox")
    return Run(request)


def _unquoted(text: str) -> str:
    """Take one pair of double quotes off that encloses a whole text, as the shell does."""
    enclosed = len(text) > 2 and text[0] == text[-1] == '"' and text.count('"') == 2
    return text[1:-1] if enclosed else text


def _parsed(start: str, rest: str) -> Request:
    request = parse_line(f"/{start}{rest}")
    assert request is not None
    return request


def first_word(text: str) -> tuple[str, str]:
    """Take one word, perhaps in double quotes, off a text; what follows stands as it was typed."""
    found = _FIRST.match(text)
    if found is None:
        return "", ""
    return found[1] if found[1] is not None else found[2], text[found.end() :].strip()


def quoted(word: str) -> str:
    """Return a word as it is typed in a line."""
    return f'"{word}"' if not word or re.search(r'\s|^"', word) else word


def _ends_in_text(word: str, rest: str) -> bool:
    if word == "mesh":
        word = first_word(rest)[0]
    name = HABITS[word].means if word in HABITS else word
    return word == "query" or name == "broadcast" or (name in COMMANDS and any(w.rest for w in COMMANDS[name].words))


def names() -> list[str]:
    """Return every word that may follow a slash."""
    return sorted({*HABITS, "mesh", *(n for n, c in COMMANDS.items() if c.mesh)})


def summary(name: str) -> str:
    """Return what a word does, in a few words."""
    if name in HABITS:
        return HABITS[name].summary
    return COMMANDS[name].summary if name in COMMANDS else "what needs links to others"


def _unknown(word: str) -> str:
    near = difflib.get_close_matches(word, names(), n=1)
    hint = f"did you mean /{near[0]}?" if near else "see /help."
    return f"There is no command /{word[:64]}; {hint} To say a line that begins with /, begin it with //."


def _help(rest: str, columns: int) -> str:
    about = rest.replace("/", " ").split()
    if not about:
        rows = [(h.usage, h.summary) for name, h in HABITS.items() if name not in ("quit", "help")] + list(KEYS)
        habits = table(rows, min(columns, HELP_COLUMNS))
        return f"{help_text((), slash=True, columns=columns)}\nAs in other chats:\n{habits}\n"
    habit = HABITS.get(_OTHER.get(about[0], about[0]))
    if habit is None:
        if about[0] not in COMMANDS and about[0] != "mesh":
            raise LocalError(_unknown(about[0]))
        return help_text(about, slash=True, columns=columns)
    more = (
        f"\nIt stands for:\n\n{help_text((habit.means,), slash=True, columns=columns)}"
        if habit.means in COMMANDS
        else ""
    )
    return f"{habit.usage}\n\n{habit.summary[0].upper()}{habit.summary[1:]}.\n{more}"
