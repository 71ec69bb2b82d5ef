"""The configuration: flag before environment before file before default, every value checked where it is read."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quicprochat.console.files import read_bounded
from quicprochat.core.address import Address, check_server
from quicprochat.core.domain import parse_domain
from quicprochat.core.errors import LocalError, UnavailableError
from quicprochat.server import peers
from quicprochat.server.options import BY_KEY, CONFIG_VARIABLE, HOME_VARIABLE, OPTIONS, TABLES, Kind, Option

FILE_NAME = "qpc-server.toml"
FILE_MAX_BYTES = 1 << 20
SYSTEM_DIRECTORY = Path("/etc/quicprochat")
COUNT_MAX = 1_000_000_000
SIZE_MAX = 1 << 50

_YES, _NO = frozenset({"1", "true", "yes", "on"}), frozenset({"0", "false", "no", "off"})
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}

Value = str | int | float | bool | Path | Address | tuple[str, ...] | None
"""What an option's value is once it is read; None where a file or an address is not set."""


@dataclass(frozen=True, slots=True)
class Config:
    """Everything decided. ``sources`` says of each option where its value is from."""

    home: Path
    file: Path | None
    values: Mapping[str, Any]
    sources: Mapping[str, str]
    peers: Mapping[str, str] = field(default_factory=dict)
    """Each domain of ``[federation_peers]``, and the ``host:port`` of its server; "" where that is not known."""
    cas: Mapping[str, Path] = field(default_factory=dict)
    """The domains of ``[federation_cas]`` and their files."""

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    def changed(self, other: Config, *, live: bool) -> list[str]:
        """Return the keys whose values differ, of those that take effect at once, or of the others."""
        return [o.key for o in OPTIONS if o.live == live and self.values[o.key] != other.values[o.key]]

    def changed_tables(self, other: Config) -> list[str]:
        """Return the tables that differ; all take effect at once."""
        pairs = {"federation_peers": (self.peers, other.peers), "federation_cas": (self.cas, other.cas)}
        return [name for name, (ours, theirs) in pairs.items() if ours != theirs]


def load(flags: Mapping[str, Any], environment: Mapping[str, str]) -> Config:
    """Read the configuration; ``flags`` are the texts (and switches) of the command line, by key.

    Raises: LocalError, UnavailableError, a sentence that names the place of what is wrong.
    """
    home = server_home(flags, environment)
    file = _find_file(flags.get("config") or environment.get(CONFIG_VARIABLE, ""), home)
    written, tables = _read_file(file) if file else ({}, {})
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for option in OPTIONS:
        value: Any = flags.get(option.key)
        where, base = option.flags[-1], Path.cwd()
        source = "flag"
        if value is None and (text := environment.get(option.env, "")):
            value, where, source = text, option.env, "environment"
        if value is None and file is not None and option.key in written:
            value, where, source, base = written[option.key], f"{option.key} in {file}", "file", file.parent
            _check_type(option, value, where)
        if value is None:
            value, where, source = option.default, option.key, "default"
        values[option.key] = read_value(option, value, where, base)
        sources[option.key] = source
    asked = sources["federation_listen"] in ("flag", "environment") and sources["federation_enabled"] == "default"
    values["federation_enabled"] = values["federation_enabled"] or asked
    config = Config(home, file, values, sources, peers.read_peers(tables, file), peers.read_cas(tables, file))
    _check_whole(config)
    return config


def server_home(flags: Mapping[str, Any], environment: Mapping[str, str]) -> Path:
    """Return the home of the server. Raises: LocalError."""
    given = flags.get("home")
    if given is None:
        given = environment.get(HOME_VARIABLE) or None
    if given == "":
        raise LocalError("--home names no directory")
    if given is not None:
        return Path(given).expanduser().absolute()
    data = environment.get("XDG_DATA_HOME", "")
    base = Path(data) if os.path.isabs(data) else Path("~/.local/share").expanduser()
    return base / "quicprochat-server"


def _find_file(given: str, home: Path) -> Path | None:
    if given:
        return Path(given).expanduser().absolute()
    for directory in (home, SYSTEM_DIRECTORY):
        try:
            if (directory / FILE_NAME).exists():
                return directory / FILE_NAME
        except OSError as error:
            raise UnavailableError(f"{directory} cannot be looked into: {error.strerror}") from error
    return None


def _read_file(path: Path) -> tuple[dict[str, Any], dict[str, dict[str, str]]]:
    try:
        document = tomllib.loads(read_bounded(path, FILE_MAX_BYTES).decode())
    except UnicodeDecodeError:
        raise LocalError(f"{path} is not valid UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise LocalError(f"{path} is no TOML: {error}") from None
    tables: dict[str, dict[str, str]] = {}
    for key, value in document.items():
        if key in TABLES:
            if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
                raise LocalError(f'[{key}] in {path} maps domains to texts, as in: "example.net" = "…"')
            tables[key] = value
        elif key not in BY_KEY:
            raise LocalError(f"{path} has an unknown key {key[:64]!r}; {_nearest(key)}")
    return {key: value for key, value in document.items() if key in BY_KEY}, tables


def _nearest(key: str) -> str:
    import difflib

    if key == "home":
        return f"the home is named by --home or {HOME_VARIABLE}, because this file may lie in it"
    flags = {option.flags[-1].lstrip("-").replace("-", "_"): option.key for option in OPTIONS}
    near = difflib.get_close_matches(key, [*BY_KEY, *flags, *TABLES], n=1, cutoff=0.5)
    return f"did you mean {flags.get(near[0], near[0])}?" if near else "all keys: qpc-server --help"


_TYPES: dict[Kind, tuple[tuple[type, ...], str]] = {
    Kind.SWITCH: ((bool,), "true or false"),
    Kind.COUNT: ((int,), "a whole number"),
    Kind.SIZE: ((int, str), 'a size, as in "4 GiB"'),
    Kind.SHARE: ((int, float), "a number between 0 and 1"),
    Kind.DOMAINS: ((list, str), 'a list of domains, as in ["one.example", "two.example"]'),
}


def _check_type(option: Option, value: Any, where: str) -> None:
    """Refuse what TOML knows to be another thing: a count in quotes, a name without. Raises: LocalError."""
    types, what = _TYPES.get(option.kind, ((str,), "a text in quotes"))
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise LocalError(f"{where} must be {what}")


def read_value(option: Option, value: Any, where: str, base: Path) -> Value:
    """Return an option's value from text or from what TOML made of it; paths are relative to ``base``.

    Raises: LocalError.
    """
    match option.kind:
        case Kind.SWITCH:
            return value if isinstance(value, bool) else _switch(value, where)
        case Kind.COUNT:
            return _count(value, where)
        case Kind.SIZE:
            return _size(value, where)
        case Kind.SHARE:
            return _share(value, where)
        case Kind.ADDRESS:
            return _address(value, where) if value else None
        case Kind.SERVER:
            return _server(value, where)
        case Kind.FILE:
            return base / Path(value).expanduser() if value else None
        case Kind.DOMAIN:
            return _domain(value, where)
        case Kind.DOMAINS:
            return _domains(value, where)
        case Kind.CHOICE:
            if value not in option.choices:
                raise LocalError(f"{where} is {value[:60]!r}; it can be {', '.join(option.choices)}")
    return str(value)


def _switch(text: str, where: str) -> bool:
    if text.lower() not in _YES | _NO:
        raise LocalError(f"{where} is {text[:60]!r}; it is a switch: 1 or 0")
    return text.lower() in _YES


def _count(value: str | int, where: str) -> int:
    text = str(value).replace("_", "")
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:18]) <= COUNT_MAX:
        raise LocalError(f"{where} is {str(value)[:60]!r}; it is a whole number from 1 to {COUNT_MAX}")
    return int(text)


def _size(value: str | int, where: str) -> int:
    text = str(value).strip()
    number = text.rstrip("KMGTkmgtiIbB ")
    unit = text[len(number) :].strip().upper().removesuffix("B").removesuffix("I")
    if not number.isascii() or not number.isdigit() or unit not in _UNITS:
        raise LocalError(f"{where} is {text[:60]!r}; it is a size, as in 4 GiB or 268435456")
    size = int(number[:18]) * _UNITS[unit]
    if not 1 <= size <= SIZE_MAX:
        raise LocalError(f"{where} is {text[:60]!r}; it is a size from 1 byte to 1024 TiB")
    return size


def _share(value: str | float, where: str) -> float:
    try:
        share = float(value)
    except ValueError:
        share = -1.0
    if not 0 < share <= 1:
        raise LocalError(f"{where} is {str(value)[:60]!r}; it is a number above 0, and at most 1")
    return share


def _address(text: str, where: str) -> Address:
    host, _, port = text.rpartition(":")
    try:
        if port == "0":  # any free port, of this address
            return Address(Address.parse(f"{host}:1").ip, 0)
        return Address.parse(text)
    except LocalError as error:
        raise LocalError(f"{where}: {error}") from None


def _server(text: str, where: str) -> str:
    try:
        return check_server(text) if text else ""
    except LocalError as error:
        raise LocalError(f"{where}: {error}") from None


def _domain(text: str, where: str) -> str:
    try:
        return parse_domain(text) if text else ""
    except LocalError as error:
        raise LocalError(f"{where}: {error}") from None


def _domains(value: str | list[Any], where: str) -> tuple[str, ...]:
    names = [name for name in value.replace(",", " ").split() if name] if isinstance(value, str) else value
    if not all(isinstance(name, str) for name in names):
        raise LocalError(f"{where} must be {_TYPES[Kind.DOMAINS][1]}")
    found = tuple(_domain(name, where) for name in names)
    if len(set(found)) < len(found) or not all(found):
        raise LocalError(f"{where} names a domain twice, or none")
    return found


def _check_whole(config: Config) -> None:
    """Refuse what is wrong only in company. Raises: LocalError."""
    import ipaddress

    peers.check(config.values, config.file, config.peers, config.cas)
    if config["registration"] == "list" and config["registration_list"] is None:
        raise LocalError("registration is list, and registration_list names no file")
    metrics = config["metrics_listen"]
    if metrics is not None and not config["metrics_anywhere"] and not ipaddress.ip_address(metrics.ip).is_loopback:
        raise LocalError(
            f"metrics_listen is {metrics}, which others can reach: use 127.0.0.1, or set metrics_anywhere if they may"
        )
