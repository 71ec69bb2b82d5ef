"""What may be typed, and what it means."""

from pathlib import Path
from typing import Any

import pytest

from quicprochat.client.catalogue import COMMANDS
from quicprochat.client.errors import EXIT_CODES, CallError, code_of, exit_code
from quicprochat.client.grammar import Request, parse, parse_line
from quicprochat.client.help import help_text
from quicprochat.client.settings import Settings
from quicprochat.core.address import Address
from quicprochat.core.errors import LocalError, RemoteError, StoreFullError, UnavailableError

PLAIN = {
    "identity", "server", "register", "add", "verify", "block", "send", "cancel", "outbox", "inbox", "listen", "store",
    "trace", "bundle",
}  # fmt: skip


def args(*argv: str, **environment: str) -> dict[str, Any]:
    return parse(argv, environment)[0].args


def settings(*argv: str, **environment: str) -> Settings:
    return parse(argv, environment)[1]


def wrong(*argv: str, **environment: str) -> str:
    with pytest.raises(LocalError) as refused:
        parse(argv, environment)
    assert exit_code(refused.value) == 2
    return str(refused.value)


def test_the_words_of_a_text_are_joined() -> None:
    assert args("send", "bob", "hello", "there") == {"peer": "bob", "text": "hello there"}
    assert args("mesh", "send", "bob", "hello  there") == {"peer": "bob", "text": "hello  there"}
    assert args("send", "bob") == {"peer": "bob"}
    assert args("send", "bob", "-") == {"peer": "bob", "text": "-"}


def test_options_stand_anywhere_around_a_command_and_its_words() -> None:
    expected = {"peer": "bob", "text": "a b", "wait": "delivered", "timeout": 1.5}
    for argv in (
        "--json send bob a b --wait delivered --timeout 1.5",
        "send --wait delivered bob a --timeout 1.5 b --json",
        "mesh --json send --timeout=1.5 bob --wait=delivered a b",
        "--home /x mesh send bob a b --wait delivered --timeout 1.5 --json",
    ):
        request, found = parse(argv.split(), {})
        assert request.args == expected, argv
        assert found.json, argv
        assert request.mesh == ("mesh" in argv.split())


def test_after_two_dashes_everything_is_text() -> None:
    assert args("send", "bob", "--", "--json", "-x") == {"peer": "bob", "text": "--json -x"}
    assert args("send", "--", "bob", "--help") == {"peer": "bob", "text": "--help"}
    assert args("send", "bob", "-5") == {"peer": "bob", "text": "-5"}
    assert "--" in wrong("send", "bob", "-.-")


def test_flag_before_environment_before_default() -> None:
    assert settings("store", HOME="/h").home == Path("~/.local/share/quicprochat").expanduser()
    assert settings("store", XDG_DATA_HOME="/data").home == Path("/data/quicprochat")
    assert settings("store", XDG_DATA_HOME="data").home == Path("~/.local/share/quicprochat").expanduser()
    assert settings("store", QPC_HOME="/env").home == Path("/env")
    assert settings("store", "--home", "/flag", QPC_HOME="/env").home == Path("/flag")
    assert settings("store", QPC_BIND="127.0.0.1:7").bind == Address("127.0.0.1", 7)
    assert settings("store", "--bind", "[::1]:0").bind == Address("::1", 0)
    assert settings("store", QPC_RELAY="https://relay.example.net").relay == "https://relay.example.net"
    assert settings("store", QPC_SERVER="server.example.net:7000").server == "server.example.net:7000"
    assert settings("store").network == "community"
    assert settings("store", QPC_NETWORK="community").network == "community"
    assert settings("store").carry == "all"
    assert settings("store", QPC_CARRY="contacts").carry == "contacts"
    assert settings("store", "--carry", "no", QPC_CARRY="contacts").carry == "no"
    for option in ("json", "ephemeral", "quiet", "no_discovery", "verbose"):
        variable = f"QPC_{option.upper()}"
        assert getattr(settings("store", **{variable: "yes"}), option) is True
        assert getattr(settings("store", **{variable: "0"}), option) is False
        assert getattr(settings("store", **{variable: ""}), option) is False
    assert settings("store", "-v").verbose


@pytest.mark.parametrize(
    ("argv", "environment"),
    [
        (("store", "--bind", "localhost:7"), {}),
        (("store", "--bind", "127.0.0.1"), {}),
        (("store",), {"QPC_BIND": "127.0.0.1:99999"}),
        (("store", "--relay", "relay.example.net"), {}),
        (("store",), {"QPC_RELAY": "https://[broken"}),
        (("store", "--server", "example.net"), {}),
        (("store", "--network", "moon"), {}),
        (("store",), {"QPC_NETWORK": "moon"}),
        (("store", "--carry", "friends"), {}),
        (("store",), {"QPC_CARRY": "1"}),
        (("store",), {"QPC_JSON": "perhaps"}),
        (("store", "--home", ""), {}),
        (("store", "--home"), {}),
        (("store", "extra"), {}),
        (("store", "--jso"), {}),
        (("send",), {}),
        (("send", ""), {}),
        (("send", "bob", "x", "--ttl", "0"), {}),
        (("send", "bob", "x", "--ttl", "1.5"), {}),
        (("send", "bob", "x", "--wait", "read"), {}),
        (("send", "bob", "x", "--timeout", "nan"), {}),
        (("send", "bob", "x", "--timeout", "-1"), {}),
        (("send", "bob", "\udcff"), {}),
        (("identity", "--name", "\udcff"), {}),
        (("listen", "--count", "0"), {}),
        (("listen", "--count", "9" * 40), {}),
        (("inbox", "--since", "x"), {}),
        (("trace",), {}),
        (("mesh", "daemon"), {}),
        (("--nonsense",), {}),
    ],
)
def test_what_is_wrong_is_said(argv: tuple[str, ...], environment: dict[str, str]) -> None:
    assert wrong(*argv, **environment)


def test_a_home_may_have_any_name() -> None:
    assert settings("store", "--home", "/x\udcff").home == Path("/x\udcff")


def test_commands_without_the_word_mesh_are_those_that_need_no_mesh() -> None:
    there = {name for name, command in COMMANDS.items() if command.plain and command.mesh}
    assert there == PLAIN | {"unblock"}
    assert wrong("peers").endswith("write: qpc mesh peers")
    assert wrong("route").endswith("write: qpc mesh route")
    assert wrong("subscribe", "x").endswith("write: qpc mesh subscribe")


def test_a_slip_is_corrected() -> None:
    assert "did you mean send?" in wrong("sned", "bob")
    assert "qpc help" in wrong("xyzzy")


def test_without_a_command_there_is_a_prompt_or_help() -> None:
    assert parse((), {})[0] == Request("repl", {})
    assert parse(("--json",), {})[0].command == "repl"
    assert parse(("--version",), {})[0].command == "version"
    for argv in (("--help",), ("help",), ("-h",)):
        assert parse(argv, {})[0] == Request("help", {"about": ()})
    assert parse(("mesh", "--help"), {})[0].args == {"about": ()}
    assert "which command" in wrong("mesh")
    assert "which command" in wrong("--json", "mesh")
    assert parse(("mesh", "send", "--help"), {})[0].args["about"] == ("mesh", "send")
    assert parse(("help", "send"), {})[0].args["about"] == ("send",)
    assert parse(("help", "mesh", "send"), {})[0].args["about"] == ("mesh", "send")
    assert parse(("mesh", "help", "send"), {})[0].args["about"] == ("mesh", "send")
    assert parse(("mesh", "help"), {})[0].args["about"] == ("mesh",)


def test_help_is_found_beside_options() -> None:
    for argv in (("--home", "/x", "help", "send"), ("help", "--home", "/x", "send"), ("help", "send", "--json")):
        assert parse(argv, {})[0] == Request("help", {"about": ("send",)}), argv
    assert parse(("mesh", "--home", "/x", "help", "send"), {})[0].args["about"] == ("mesh", "send")


def test_there_is_help_on_everything() -> None:
    overview = help_text(())
    for name, command in COMMANDS.items():
        assert name in overview
        assert command.summary in overview.replace("\n", " ")
        for slash in (False, True):
            if slash and not command.mesh:
                continue
            text = help_text((name,), slash=slash)
            assert all(option.flags[0] in text for option in command.options)
    with pytest.raises(LocalError):
        help_text(("nonsense",))


# --- the prompt


def line(text: str) -> dict[str, Any]:
    request = parse_line(text)
    assert request is not None
    return request.args


def test_the_text_of_a_line_stands_as_it_was_typed() -> None:
    assert line('/send bob  it\'s "fine"  -- --wait x ') == {"peer": "bob", "text": 'it\'s "fine"  -- --wait x'}
    assert line('/mesh send "Bob B." hi') == {"peer": "Bob B.", "text": "hi"}
    assert line("/send --wait delivered bob hi") == {"peer": "bob", "text": "hi", "wait": "delivered"}
    assert line("/send bob") == {"peer": "bob"}


def test_lines_are_commands_too() -> None:
    assert parse_line("") is None
    assert parse_line("  \t") is None
    assert parse_line("/quit") == Request("quit", {})
    with pytest.raises(LocalError, match="'now' is too much; write: /quit"):
        parse_line("/quit now")
    assert parse_line("/mesh peers --scan 2") == Request("peers", {"scan": 2.0}, mesh=True)
    assert parse_line("/help") == Request("help", {"about": ()})
    assert parse_line("/help /mesh send") == Request("help", {"about": ("mesh", "send")})
    assert parse_line("/store --help") == Request("help", {"about": ("store",)})


@pytest.mark.parametrize("text", ["hello", "/nonsense", "/peers", "/send", "/mesh", "/mesh nonsense x", "/daemon", "/"])
def test_lines_that_are_no_commands_are_said_to_be_none(text: str) -> None:
    if text == "/mesh":
        assert parse_line(text) == Request("help", {"about": ("mesh",)})
        return
    with pytest.raises(LocalError):
        parse_line(text)


def test_a_choice_for_programs_is_taken_and_not_offered() -> None:
    assert parse(["completion", "contacts"], {})[0].args == {"shell": "contacts"}
    with pytest.raises(LocalError, match="'tcsh' is none of bash, zsh, fish; write"):
        parse(["completion", "tcsh"], {})


# --- exit codes


def test_every_error_has_a_word_and_a_code() -> None:
    for error, word, code in (
        (LocalError("x"), "usage", 2),
        (LocalError("x", code="not_found"), "not_found", 5),
        (LocalError("x", code="policy"), "policy", 7),
        (LocalError("x", code="never heard of"), "usage", 2),
        (UnavailableError("x"), "unavailable", 3),
        (StoreFullError("x"), "store", 3),
        (RemoteError("x"), "protocol", 3),
        (CallError("x", "timeout"), "timeout", 6),
    ):
        assert (code_of(error), exit_code(error)) == (word, code)
    assert set(EXIT_CODES.values()) == {2, 3, 4, 5, 6, 7, 70, 130}


def test_an_emergency_is_an_option_wherever_it_stands_beside_the_text() -> None:
    wanted = Request("broadcast", {"topic": "square", "text": "fire", "emergency": True}, mesh=True)
    for words in (
        ["--emergency", "square", "fire"],
        ["square", "fire", "--emergency"],
        ["square", "--emergency", "fire"],
    ):
        assert parse(["mesh", "broadcast", *words], {})[0] == wanted
        assert parse_line(f"/mesh broadcast {' '.join(words)}") == wanted
    told = parse_line("/mesh broadcast square write --emergency behind it")
    assert told == Request("broadcast", {"topic": "square", "text": "write --emergency behind it"}, mesh=True)
    assert parse(["mesh", "broadcast", "square", "--", "fire --emergency"], {})[0].args["text"] == "fire --emergency"


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_help_fits_the_terminal(columns: int) -> None:
    texts = [help_text((), columns=columns), *(help_text((name,), columns=columns) for name in COMMANDS)]
    rows = [
        row for text in texts for row in text.splitlines() if not row.startswith("  -")
    ]  # what is typed stays whole
    assert max(map(len, rows)) <= min(columns, 100)
    assert "its owner changes that" in " ".join(help_text((), columns=columns).split())


def test_options_that_are_wrong_are_named_and_corrected() -> None:
    assert wrong("mesh", "accept", "x", "--nam", "ann").startswith(
        "qpc mesh accept has no option '--nam'; did you mean --name?"
    )
    assert "before a text that begins with - put --" in wrong("send", "bob", "-:)")
    assert wrong("send", "bob", "x", "--wait", "red").startswith("--wait: 'red' is none of relayed, delivered")
    assert wrong("store", "--home").startswith("--home needs a value behind it")
    assert line("/mesh history #bakery") == {"topic": "bakery"}
