"""Completion scripts for bash, zsh and fish, made from the catalogue: what can be typed is written down once.

The scripts find the command among the words typed so far and offer its options, choices, files, contacts' names and
topics. The last two they ask of ``qpc completion contacts`` and ``topics``, which start no node: contacts stand in the
identity file; topics are told by the node that runs, else they are read from its store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from quicprochat.client.catalogue import COMMANDS, GLOBALS, Option, Value, Word
from quicprochat.core.errors import LocalError, QuicprochatError

CONTACTS, TOPICS, FILES, DIRECTORIES = "@contacts", "@topics", "@files", "@directories"
"""What is offered that no list can hold."""
OWNER_S = 1.0
"""How long the node of the home has for naming its channels: a person waits."""
_DIRECTORY_OPTIONS = frozenset({"home"})
_PEER_KEYS = frozenset({"peer", "without"})
_TOPIC_KEYS = frozenset({"topic"})
_FILE_KEYS = frozenset({"file"})
HELP = Option(("-h", "--help"), "show how the command is used", Value.FLAG)


def script(shell: str) -> str:
    """Return the script for a shell of :data:`SHELLS`."""
    return SHELLS[shell]()


def contacts(home: Path) -> list[str]:
    """Return contacts' names, none where there is no home or anything is wrong with it: Tab is no time to complain."""
    from quicprochat.adapters.keyfile import read_keyfile
    from quicprochat.core.identity import parse_identity

    try:
        data = read_keyfile(home / "identity.json")
        found = parse_identity(data)[3].values() if data is not None else ()
    except QuicprochatError:
        return []
    return sorted(contact.name for contact in found if contact.name and contact.name.isprintable())


def topics(home: Path) -> list[str]:
    """Return the topics of our channels, none where there is no home or anything is wrong with it."""
    from quicprochat.adapters.home import Home
    from quicprochat.adapters.sqlite.topics import topics_at_rest  # now, not while the home is owned

    try:
        if not (home / "mesh.db").is_file():
            return []  # looking makes no home
        owned = Home(home)
        try:
            owned.own()
        except LocalError:
            found = _topics_of_owner(home)
        else:
            try:
                found = topics_at_rest(owned.database)
            finally:
                owned.disown()
    except QuicprochatError:
        return []
    return sorted(topic for topic in found if topic.isprintable())


def _topics_of_owner(home: Path) -> list[str]:
    import asyncio

    from quicprochat.client.socket import SocketCall

    async def ask() -> list[str]:
        async with asyncio.timeout(OWNER_S):
            call = await SocketCall.connect(home)
            if call is None:
                return []
            try:
                await call.ask("channels", {})
                found: list[str] = []
                while (item := await call.next()) is not None:
                    found.append(str(item.get("topic")))
                return found
            finally:
                await call.close()

    try:
        return asyncio.run(ask())
    except TimeoutError:
        return []


ASKED = {"contacts": contacts, "topics": topics}
"""What the scripts ask for, and what answers."""


# --- what can be typed where


def _first_words() -> list[tuple[str, str]]:
    """Return what stands first: commands without the word mesh."""
    plain = [(command.name, command.summary) for command in COMMANDS.values() if command.plain]
    return [*plain, ("mesh", "the same commands, and those of the mesh"), ("help", "show how a command is used")]


def _mesh_words() -> list[tuple[str, str]]:
    return [(command.name, command.summary) for command in COMMANDS.values() if command.mesh]


def _values(thing: Option | Word) -> tuple[str, ...]:
    """Return what an option or a word can be, () where only the person knows."""
    if thing.choices:
        return thing.choices
    if thing.key in _PEER_KEYS:
        return (CONTACTS,)
    if thing.key in _TOPIC_KEYS:
        return (TOPICS,)
    if thing.key in _FILE_KEYS:
        return (FILES,)
    return (DIRECTORIES,) if thing.key in _DIRECTORY_OPTIONS else ()


def _valued() -> list[tuple[str, Option]]:
    """Return every option that takes a value, with the command it belongs to, "" for those of all commands."""
    pairs = [("", option) for option in GLOBALS]
    pairs += [(command.name, option) for command in COMMANDS.values() for option in command.options]
    return [(name, option) for name, option in pairs if option.value is not Value.FLAG]


def _flags(options: Iterable[Option]) -> list[str]:
    return [flag for option in options for flag in option.flags]


# --- bash


_BASH = r"""# bash completion of qpc; to use it:  source <(qpc completion bash)

_qpc_ask() {
    local name typed="${cur//\\/}"
    while IFS= read -r name; do
        [[ $name == "$typed"* ]] && COMPREPLY+=("$(printf %%q "$name")")
    done < <("$program" ${home[@]+"${home[@]}"} completion "$1" 2>/dev/null)
}

_qpc_offer() {
    case "$1" in
        @contacts|@topics) _qpc_ask "${1#@}" ;;
        @files) compopt -o filenames 2>/dev/null; COMPREPLY+=($(compgen -f -- "$cur")) ;;
        @directories) compopt -o filenames 2>/dev/null; COMPREPLY+=($(compgen -d -- "$cur")) ;;
        *) COMPREPLY+=($(compgen -W "$1" -- "$cur")) ;;
    esac
}

_qpc() {
    local IFS=$' \t\n' program="${COMP_WORDS[0]}" cur="${COMP_WORDS[COMP_CWORD]}" command= mesh= expecting= word i
    local -i position=0
    local -a home=()
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        word="${COMP_WORDS[i]}"
        [[ $word == = ]] && continue
        if [[ -n $expecting ]]; then
            [[ $expecting == --home ]] && home=(--home "${word/#\~/$HOME}")
            expecting=
            continue
        fi
        case "$word" in
            %(valued)s) expecting="$word" ;;
            -?*) ;;
            mesh) if [[ -z $command && -z $mesh ]]; then mesh=1; else position+=1; fi ;;
            *) if [[ -z $command ]]; then command="$word"; else position+=1; fi ;;
        esac
    done
    [[ $cur == = ]] && cur=
    if [[ -n $expecting ]]; then
        case "$command $expecting" in
%(option_values)s
        esac
    elif [[ $cur == -* ]]; then
        local own=
        case "$command" in
%(options)s
        esac
        _qpc_offer "$own %(globals)s"
    elif [[ -z $command ]]; then
        if [[ -n $mesh ]]; then _qpc_offer "%(mesh)s"; else _qpc_offer "%(first)s"; fi
    else
        case "$command $position" in
%(words)s
        esac
    fi
}

complete -F _qpc qpc
"""


def _bash() -> str:
    def case(pattern: str, values: tuple[str, ...]) -> str:
        return f'            {pattern}) _qpc_offer "{" ".join(values)}" ;;'

    return _BASH % {
        "valued": "|".join(sorted({flag for _, option in _valued() for flag in option.flags})),
        "option_values": "\n".join(
            case(f'"{name} {flag}"' if name else f'*" {flag}"', _values(option))
            for name, option in _valued()
            for flag in option.flags
            if _values(option)
        ),
        "options": "\n".join(
            f'            {name}) own="{" ".join(_flags(command.options))}" ;;'
            for name, command in COMMANDS.items()
            if command.options
        ),
        "globals": " ".join(_flags((*GLOBALS, HELP))),
        "mesh": " ".join(name for name, _ in _mesh_words()),
        "first": " ".join(name for name, _ in _first_words()),
        "words": "\n".join(
            [
                *(case(f'"{name} {n}"', _values(word)) for name, n, word in _placed()),
                case('"help 0"', tuple(COMMANDS)),
            ]
        ),
    }


def _placed() -> list[tuple[str, int, Word]]:
    """Return every word that something can be offered for: its command and its place."""
    return [
        (name, n, word) for name, command in COMMANDS.items() for n, word in enumerate(command.words) if _values(word)
    ]


# --- zsh


_ZSH = r"""#compdef qpc
# zsh completion of qpc; to use it:  source <(qpc completion zsh)   (after compinit)

_qpc_ask() {
    local -a names
    names=(${(f)"$("$program" $home completion $1 2>/dev/null)"})
    compadd -a names
}

_qpc() {
    local program=$words[1] command= mesh= expecting= word
    local -i position=0 i
    local -a home offers
    for ((i = 2; i < CURRENT; i++)); do
        word=${(Q)words[i]}
        if [[ -n $expecting ]]; then
            [[ $expecting == --home ]] && home=(--home ${word/#\~/$HOME})
            expecting=
            continue
        fi
        case $word in
            %(valued)s) expecting=$word ;;
            -?*) ;;
            mesh) if [[ -z $command && -z $mesh ]]; then mesh=1; else position+=1; fi ;;
            *) if [[ -z $command ]]; then command=$word; else position+=1; fi ;;
        esac
    done
    if [[ -n $expecting ]]; then
        case "$command $expecting" in
%(option_values)s
        esac
    elif [[ $PREFIX == -* ]]; then
        case $command in
%(options)s
        esac
        offers+=(
%(globals)s
        )
        _describe -o option offers
    elif [[ -z $command ]]; then
        if [[ -n $mesh ]]; then
            offers=(
%(mesh)s
            )
        else
            offers=(
%(first)s
            )
        fi
        _describe command offers
    else
        case "$command $position" in
%(words)s
        esac
    fi
}

if [[ $funcstack[1] == _qpc ]]; then _qpc "$@"; else compdef _qpc qpc; fi
"""


def _zsh() -> str:
    actions = {
        CONTACTS: "_qpc_ask contacts", TOPICS: "_qpc_ask topics", FILES: "_files", DIRECTORIES: "_files -/"
    }  # fmt: skip

    def case(pattern: str, values: tuple[str, ...]) -> str:
        return f"            {pattern}) {actions.get(values[0], 'compadd ' + ' '.join(values))} ;;"

    def described(pairs: Iterable[tuple[str, str]], indent: int) -> str:
        lines = (_quoted(f"{word}:{text}" if text else word) for word, text in pairs)
        return "\n".join(" " * indent + line for line in lines)

    def options(found: Iterable[Option], indent: int) -> str:
        return described([(flag, option.help) for option in found for flag in option.flags], indent)

    return _ZSH % {
        "valued": "|".join(sorted({flag for _, option in _valued() for flag in option.flags})),
        "option_values": "\n".join(
            case(f'"{name} {flag}"' if name else f'*" {flag}"', _values(option))
            for name, option in _valued()
            for flag in option.flags
            if _values(option)
        ),
        "options": "\n".join(
            f"            {name}) offers=(\n{options(command.options, 16)}\n            ) ;;"
            for name, command in COMMANDS.items()
            if command.options
        ),
        "globals": options((*GLOBALS, HELP), 12),
        "mesh": described(_mesh_words(), 16),
        "first": described(_first_words(), 16),
        "words": "\n".join(
            [
                *(case(f'"{name} {n}"', _values(word)) for name, n, word in _placed()),
                case('"help 0"', tuple(COMMANDS)),
            ]
        ),
    }


def _quoted(text: str) -> str:
    """Quote for zsh and sh."""
    return "'" + text.replace("'", "'\\''") + "'"


# --- fish


_FISH = r"""# fish completion of qpc; to use it:  qpc completion fish | source

function __qpc_words --description 'the command, then the words after it; mesh is left out, unless it stands alone'
    set -l expecting
    set -l mesh
    set -l command
    for word in (commandline -opc)[2..-1]
        if test -n "$expecting"
            set expecting
            continue
        end
        switch $word
            case %(valued)s
                set expecting $word
            case '-?*'
            case mesh
                if test -z "$command$mesh"
                    set mesh mesh
                else
                    set -a command $word
                end
            case '*'
                set -a command $word
        end
    end
    if test -n "$command"
        printf '%%s\n' $command
    else if test -n "$mesh"
        echo mesh
    end
end

function __qpc_none --description 'no command yet'
    test -z (__qpc_words | string collect)
end

function __qpc_in --description 'this command, perhaps with so many words after it'
    set -l words (__qpc_words)
    test "$words[1]" = $argv[1]; or return
    test (count $argv) -lt 2; or test (math (count $words) - 1) -eq $argv[2]
end

function __qpc_ask --description 'contacts or topics of the home'
    set -l tokens (commandline -opc)
    set -l home
    set -l at (contains -i -- --home $tokens)
    and set home --home (string replace -r '^~' $HOME -- $tokens[(math $at + 1)])
    $tokens[1] $home completion $argv[1] 2>/dev/null
end

complete -c qpc -f
%(lines)s
"""


def _fish() -> str:
    offers = {
        CONTACTS: "(__qpc_ask contacts)", TOPICS: "(__qpc_ask topics)", DIRECTORIES: "(__fish_complete_directories)"
    }  # fmt: skip

    def values(thing: Option | Word) -> str:
        found = _values(thing)
        if found == (FILES,):
            return " -F"
        return f" -a {_fish_quoted(offers.get(found[0], ' '.join(found)))}" if found else ""

    def option(condition: str, found: Option) -> str:
        flags = "".join(f" -l {f[2:]}" if f.startswith("--") else f" -s {f[1:]}" for f in found.flags)
        takes = "" if found.value is Value.FLAG else f" -x{values(found)}"
        return f"complete -c qpc{condition}{flags}{takes} -d {_fish_quoted(found.help)}"

    lines = [f"complete -c qpc -n __qpc_none -a {name} -d {_fish_quoted(text)}" for name, text in _first_words()]
    lines += [f"complete -c qpc -n '__qpc_in mesh 0' -a {name} -d {_fish_quoted(text)}" for name, text in _mesh_words()]
    lines += [option("", found) for found in (*GLOBALS, HELP)]
    for name, command in COMMANDS.items():
        lines += [option(f" -n '__qpc_in {name}'", found) for found in command.options]
    lines += [f"complete -c qpc -n '__qpc_in {name} {n}'{values(word)}" for name, n, word in _placed()]
    lines += [f"complete -c qpc -n '__qpc_in help 0' -a {_fish_quoted(' '.join(COMMANDS))}"]
    return _FISH % {
        "valued": " ".join(sorted({flag for _, found in _valued() for flag in found.flags})),
        "lines": "\n".join(lines),
    }


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


SHELLS: dict[str, Callable[[], str]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
