"""The server's configuration: what wins, what is refused, and that nothing is left out of help and example."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from quicprochat.console.files import read_keys
from quicprochat.core.address import Address
from quicprochat.core.errors import LocalError, UnavailableError
from quicprochat.server import config as module
from quicprochat.server.cli import COMMANDS, parse
from quicprochat.server.config import Config, load
from quicprochat.server.help import example, help_text
from quicprochat.server.options import BY_KEY, OPTIONS, PEERS_MAX, TABLES, Kind

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "docs" / "qpc-server.example.toml"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No configuration of the machine that runs the tests."""
    monkeypatch.setattr(module, "SYSTEM_DIRECTORY", tmp_path / "etc")


def read(tmp_path: Path, text: str = "", flags: dict[str, Any] | None = None, **environment: str) -> Config:
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    if text:
        (home / "qpc-server.toml").write_text(text)
    return load({"home": str(home), **(flags or {})}, environment)


# --- what wins


def test_defaults(tmp_path: Path) -> None:
    config = read(tmp_path)
    assert config.file is None
    assert config["listen"] == Address("::", 7000)
    assert config["registration"] == "open"
    assert config["metrics_listen"] is None
    assert set(config.sources.values()) == {"default"}


def test_flag_before_environment_before_file_before_default(tmp_path: Path) -> None:
    text = "connections = 1\nusers_max = 1\nmessages_per_pair = 1"
    config = read(
        tmp_path, text, {"connections": "3"}, QPC_CONNECTIONS="2", QPC_USERS_MAX="2", QPC_MESSAGES_PER_RECIPIENT=""
    )
    assert [config[key] for key in ("connections", "users_max", "messages_per_pair", "messages_per_recipient")] == [
        3, 2, 1, 1_000,
    ]  # fmt: skip
    assert [config.sources[key] for key in ("connections", "users_max", "messages_per_pair")] == [
        "flag", "environment", "file",
    ]  # fmt: skip


def test_a_switch_can_be_turned_off_by_what_comes_first(tmp_path: Path) -> None:
    assert not read(tmp_path, "verbose = true", {"verbose": False})["verbose"]
    assert not read(tmp_path, "verbose = true", QPC_VERBOSE="off")["verbose"]
    assert read(tmp_path, "verbose = true")["verbose"]


def test_the_domain_has_its_own_names(tmp_path: Path) -> None:
    assert read(tmp_path, 'federation_domain = "Example.NET."')["federation_domain"] == "example.net"
    assert read(tmp_path, QPC_LOCAL_DOMAIN="one.net")["federation_domain"] == "one.net"
    assert parse(["--domain", "two.net"]).flags["federation_domain"] == "two.net"


def test_the_file_is_looked_for_in_three_places(tmp_path: Path) -> None:
    home, etc, named = tmp_path / "home", tmp_path / "etc", tmp_path / "named.toml"
    home.mkdir()
    etc.mkdir()
    (etc / "qpc-server.toml").write_text("connections = 1")
    flags = {"home": str(home)}
    assert load(flags, {}).file == etc / "qpc-server.toml"
    (home / "qpc-server.toml").write_text("connections = 2")
    assert load(flags, {})["connections"] == 2
    named.write_text("connections = 3")
    assert load(flags, {"QPC_CONFIG": str(named)})["connections"] == 3
    assert load({**flags, "config": str(named)}, {"QPC_CONFIG": "x"})["connections"] == 3
    with pytest.raises(UnavailableError, match=r"missing\.toml cannot be read: No such file"):
        load({**flags, "config": str(tmp_path / "missing.toml")}, {})


def test_the_home_is_named_by_flag_then_variable_then_data_directory(tmp_path: Path) -> None:
    assert load({}, {"QPC_SERVER_HOME": str(tmp_path)}).home == tmp_path
    assert load({"home": str(tmp_path)}, {"QPC_SERVER_HOME": "/x"}).home == tmp_path
    assert load({}, {"XDG_DATA_HOME": str(tmp_path)}).home == tmp_path / "quicprochat-server"
    with pytest.raises(LocalError, match="names no directory"):
        load({"home": ""}, {})


def test_files_are_found_beside_the_configuration(tmp_path: Path) -> None:
    assert read(tmp_path, 'block_list = "blocked"')["block_list"] == tmp_path / "home" / "blocked"
    assert read(tmp_path, QPC_BLOCK_LIST="blocked")["block_list"] == Path.cwd() / "blocked"
    assert read(tmp_path, 'block_list = "/x/y"')["block_list"] == Path("/x/y")


def test_changed_keys_are_told_apart(tmp_path: Path) -> None:
    before = read(tmp_path)
    after = read(tmp_path, 'users_max = 5\nlisten = "127.0.0.1:1"')
    assert after.changed(before, live=True) == ["users_max"]
    assert after.changed(before, live=False) == ["listen"]


# --- what is refused


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("conections = 1", r"unknown key 'conections'; did you mean connections\?"),
        ('domain = "x.net"', r"unknown key 'domain'; did you mean federation_domain\?"),
        ("zzzzzz = 1", "unknown key 'zzzzzz'; all keys"),
        ('home = "/x"', "the home is named by --home"),
        ("[federation_pears]", r"did you mean federation_peers\?"),
        ('connections = "5"', "connections in .* must be a whole number"),
        ("connections = 1.5", "must be a whole number"),
        ("connections = true", "must be a whole number"),
        ("connections = 0", "whole number from 1"),
        ("connections = -4", "whole number from 1"),
        ("verbose = 1", "must be true or false"),
        ("listen = 7000", "must be a text in quotes"),
        ('listen = "7000"', "is not an address"),
        ('listen = "example.net:7000"', "is not an address"),
        ('storage = "4 apples"', "it is a size, as in 4 GiB"),
        ('storage = "0"', "it is a size from 1 byte"),
        ("storage = 4.5", "must be a size"),
        ("storage_share = 0", "a number above 0"),
        ("storage_share = 1.1", "a number above 0"),
        ("storage_share = nan", "a number above 0"),
        ('announce_as = "example.net"', "write host:port"),
        ('registration = "closed"', "it can be open, invite, list"),
        ('registration = "list"', "registration_list names no file"),
        ('federation_domain = "a b"', "it is written as in example.net"),
        ('federation_domain = "-a.net"', "it is written as in example.net"),
        ('federation_domain = "a..net"', "it is written as in example.net"),
        ('metrics_listen = "0.0.0.0:9700"', "which others can reach"),
        ('metrics_listen = "[::]:9700"', "which others can reach"),
        ('federation_domain = "192.0.2.1"', "it is written as in example.net"),
        ('federation_domain = "*.example.net"', "it is written as in example.net"),
        ('federation_domain = "büro.net"', "others as xn--"),
        ('[federation_peers]\n"x y" = "192.0.2.1:7001"', r"\[federation_peers\] in .* 'x y' is no domain"),
        ('[federation_peers]\n"x.net" = "192.0.2.1"', "no server of x.net: write host:port, as in 192.0.2.1:7001"),
        ('[federation_peers]\n"x.net" = ""\n"X.net." = ""', "names x.net twice"),
        ('federation_domain = "x.net"\n[federation_peers]\n"x.net" = ""', "this server's own domain"),
        ('[federation_peers]\n"x.net" = ""\n[federation_cas]\n"x.ent" = "a"', "names x.ent, which is not in"),
        ('[federation_peers]\n"x.net" = ""\n[federation_cas]\n"x.net" = ""', "names no file for x.net"),
        ('federation_channels = ["y.net"]', "federation_channels names y.net, which is not in"),
        ("federation_channels = 5", "must be a list of domains"),
        ("federation_channels = [5]", "must be a list of domains"),
        ('federation_channels = ["y.net", "Y.net."]', "names a domain twice"),
        ('federation_channels = [""]', "names a domain twice, or none"),
        ('federation_channels = ["a b"]', "it is written as in example.net"),
        ("federation_peers = 5", "maps domains to texts"),
        ("[federation_peers]\nx = 5", "maps domains to texts"),
        ("connections = ", "is no TOML"),
        ("\x00", "is no TOML"),
    ],
)
def test_a_wrong_line_is_refused_in_a_sentence(tmp_path: Path, line: str, why: str) -> None:
    with pytest.raises(LocalError, match=why):
        read(tmp_path, line)


def test_a_file_that_is_no_text_or_too_long_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(LocalError, match="not valid UTF-8"):
        load({"config": str(file)}, {})
    file.write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(LocalError, match="no file of ours"):
        load({"config": str(file)}, {})


@pytest.mark.parametrize(
    ("text", "size"), [("1", 1), ("4 GiB", 4 << 30), ("4G", 4 << 30), ("2kb", 2 << 10), ("1 TiB", 1 << 40)]
)
def test_sizes(tmp_path: Path, text: str, size: int) -> None:
    assert read(tmp_path, QPC_STORAGE=text)["storage"] == size
    assert read(tmp_path, f'storage = "{text}"')["storage"] == size


def test_metrics_may_leave_the_machine_when_told_so(tmp_path: Path) -> None:
    config = read(tmp_path, 'metrics_listen = "0.0.0.0:9700"\nmetrics_anywhere = true')
    assert config["metrics_listen"] == Address("0.0.0.0", 9700)


# --- federation

FILES = 'federation_domain = "x.net"\nfederation_cert = "c"\nfederation_key = "k"\nfederation_ca = "a"\n'


@pytest.mark.parametrize(
    ("text", "environment", "enabled"),
    [
        ("", {}, False),
        ("federation_enabled = false", {}, False),
        ("federation_enabled = true", {}, True),
        ('federation_listen = "[::]:7001"\n[federation_peers]\n"y.net" = "192.0.2.1:7001"', {}, False),
        ("", {"QPC_FEDERATION_LISTEN": "[::]:7001"}, True),
        ("federation_enabled = false", {"QPC_FEDERATION_LISTEN": "[::]:7001"}, False),
        ("federation_enabled = false", {"QPC_FEDERATION_ENABLED": "1"}, True),
        ("", {"QPC_FEDERATION_CERT": "/x"}, False),
    ],
)
def test_what_turns_federation_on(tmp_path: Path, text: str, environment: dict[str, str], enabled: bool) -> None:
    assert read(tmp_path, FILES + text, None, **environment)["federation_enabled"] is enabled


@pytest.mark.parametrize(
    ("missing", "why"),
    [
        ("federation_domain", "needs the domain that this server speaks for: --domain"),
        ("federation_cert", r"needs federation_cert \(QPC_FEDERATION_CERT\): qpc-server cert issue makes it"),
        ("federation_key", r"needs federation_key \(QPC_FEDERATION_KEY\)"),
        ("federation_ca", r"needs federation_ca \(QPC_FEDERATION_CA\)"),
    ],
)
def test_federation_says_what_it_still_needs(tmp_path: Path, missing: str, why: str) -> None:
    text = "".join(line + "\n" for line in FILES.splitlines() if not line.startswith(missing))
    with pytest.raises(LocalError, match=why):
        read(tmp_path, text + "federation_enabled = true")
    assert not read(tmp_path, text)["federation_enabled"]


@pytest.mark.parametrize(
    ("listen", "federation", "clash"),
    [
        ("[::]:7001", "[::]:7001", True),
        ("192.0.2.1:7001", "[::]:7001", True),
        ("192.0.2.1:7001", "192.0.2.1:7001", True),
        ("192.0.2.1:7001", "192.0.2.2:7001", False),
        ("[::]:7000", "[::]:7001", False),
        ("127.0.0.1:0", "127.0.0.1:0", False),
    ],
)
def test_clients_and_servers_have_each_their_port(tmp_path: Path, listen: str, federation: str, clash: bool) -> None:
    environment = {"QPC_LISTEN": listen, "QPC_FEDERATION_LISTEN": federation}
    if not clash:
        assert read(tmp_path, FILES, None, **environment)["federation_enabled"]
        return
    with pytest.raises(LocalError, match="each needs a port of its own"):
        read(tmp_path, FILES, None, **environment)


def test_peers_are_read_in_one_spelling_and_their_authorities_beside_the_file(tmp_path: Path) -> None:
    text = '[federation_peers]\n"Y.net." = "Mesh.y.NET:7001"\n"z.net" = ""\n[federation_cas]\n"Y.NET" = "y.der"'
    config = read(tmp_path, FILES + text)
    assert config.peers == {"y.net": "mesh.y.net:7001", "z.net": ""}
    assert config.cas == {"y.net": tmp_path / "home" / "y.der"}
    assert config.changed_tables(read(tmp_path, "#")) == ["federation_peers", "federation_cas"]
    assert config.changed_tables(config) == []


def test_more_peers_than_a_server_can_have_are_refused(tmp_path: Path) -> None:
    lines = "\n".join(f'"n{number}.net" = ""' for number in range(PEERS_MAX + 1))
    with pytest.raises(LocalError, match="has 1001 domains; 1000 are allowed"):
        read(tmp_path, "[federation_peers]\n" + lines)


# --- lists


def test_a_list_of_keys_may_have_remarks(tmp_path: Path) -> None:
    file = tmp_path / "list"
    file.write_text(f"# people\n\n{'ab' * 32}  ada of the bakery\n{'CD' * 32}# bob\n   \n{'ab' * 32}\n")
    assert read_keys(file) == {b"\xab" * 32, b"\xcd" * 32}
    assert read_keys(None) == frozenset()


@pytest.mark.parametrize("line", ["abc", "zz" * 32, "ab" * 31, "ab" * 33, "ab " * 32])
def test_a_wrong_line_in_a_list_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "list"
    file.write_text(f"{'ab' * 32}\n{line}\n")
    with pytest.raises(LocalError, match=r"list, line 2: a key has 64 hexadecimal digits"):
        read_keys(file)


# --- help and example


def test_the_example_is_what_the_options_say() -> None:
    assert EXAMPLE.read_text("utf-8") == example(), "write it anew from quicprochat.server.help.example()"


def test_the_example_uncommented_is_the_defaults(tmp_path: Path) -> None:
    lines = [line[1:] if line.startswith("#") and line[1:2] not in (" ", "") else line for line in
             EXAMPLE.read_text("utf-8").splitlines()]  # fmt: skip
    text = "\n".join(lines)
    document = tomllib.loads(text)
    assert set(document) == set(BY_KEY) | set(TABLES)
    written = read(tmp_path, text)
    assert set(written.sources.values()) == {"file"}
    assert written.values == read(tmp_path, "#").values


def test_help_names_every_option_command_and_table() -> None:
    text = help_text(())
    for option in OPTIONS:
        flag = option.flags[-1]
        shown = "--[no-]" + flag.removeprefix("--") if option.kind is Kind.SWITCH else flag + " "
        assert shown in text
        assert option.env in text.replace("\n" + " " * 31, " ")
    for command in COMMANDS:
        assert command.usage in text
        assert command.usage in help_text(command.words) or not command.words
    assert all(f"[{table}]" in text for table in TABLES)
    assert max(map(len, text.splitlines())) <= 150


# --- the command line


def test_options_stand_before_and_after_the_command() -> None:
    for arguments in (["--home", "x", "status", "--json"], ["status", "--json", "--home", "x"]):
        request = parse(arguments)
        assert (request.command.words, request.flags, request.json) == (("status",), {"home": "x"}, True)
    assert parse(["users", "remove", "ab"]).args == ("ab",)
    assert parse(["invite", "--days", "3"]).flags == {"days": 3}
    assert parse(["--no-metrics-anywhere", "-v"]).flags == {"metrics_anywhere": False, "verbose": True}


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["stauts"], r"no command 'stauts'; did you mean status\?"),
        (["frobnicate"], "all commands: qpc-server help"),
        (["config"], r"no command 'config'; did you mean config check\?"),
        (["backup"], "write: qpc-server backup FILE"),
        (["backup", ""], "write: qpc-server backup FILE"),
        (["backup", "a", "b"], "write: qpc-server backup FILE"),
        (["users", "remove"], "write: qpc-server users remove KEY"),
        (["users", "add", "x"], "write: qpc-server users"),
        (["status", "--days", "3"], "--days belongs to"),
        (["invite", "--days", "many"], "it is a whole number"),
        (["--listne", "x"], "there is no option '--listne"),
        (["--home"], "--home: expected one argument"),
    ],
)
def test_what_cannot_be_read_is_refused_in_a_sentence(arguments: list[str], why: str) -> None:
    with pytest.raises(LocalError, match=why):
        parse(arguments)


def test_domains_to_share_channels_with_stand_in_a_list(tmp_path: Path) -> None:
    table = '\n[federation_peers]\n"y.net" = ""\n"z.net" = ""'
    assert read(tmp_path, 'federation_channels = ["Y.net."]' + table)["federation_channels"] == ("y.net",)
    found = read(tmp_path, table, None, QPC_FEDERATION_CHANNELS="y.net, z.net")
    assert found["federation_channels"] == ("y.net", "z.net")
    assert read(tmp_path, table)["federation_channels"] == ()
