"""The options every command has: flag before environment before default."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quicprochat.client.catalogue import GLOBALS, Option, Value
from quicprochat.core.errors import LocalError

if TYPE_CHECKING:
    from quicprochat.core.address import Address

_YES = frozenset({"1", "true", "yes", "on"})
_NO = frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the home is and how a node in it is to run. Only the owner of the home needs more than ``home``."""

    home: Path
    bind: Address | None = None
    relay: str = ""
    server: str = ""
    network: str = "community"
    no_discovery: bool = False
    quiet: bool = False
    carry: str = "all"
    ephemeral: bool = False
    json: bool = False
    verbose: bool = False


def make_settings(given: Mapping[str, Any], environment: Mapping[str, str]) -> Settings:
    """Put the settings together. Raises: LocalError naming the option or variable that is wrong."""
    values: dict[str, Any] = {}
    for option in GLOBALS:
        value, source = given.get(option.key), option.flags[-1]
        if value is None and (text := environment.get(option.variable, "")):
            value, source = _from_environment(option, text), option.variable
        if value is not None:
            values[option.key] = _checked(option.key, value, source)
    values.setdefault("home", default_home(environment))
    return Settings(**values)


def _from_environment(option: Option, text: str) -> Any:
    if option.value is Value.FLAG:
        if text.lower() not in _YES | _NO:
            raise LocalError(f"{option.variable} is {text[:60]!r}; it is a switch: 1 or 0")
        return text.lower() in _YES
    if option.choices and text not in option.choices:
        raise LocalError(f"{option.variable} is {text[:60]!r}; it can be {', '.join(option.choices)}")
    return text


def _checked(key: str, value: Any, source: str) -> Any:
    if key == "home":
        if not value:
            raise LocalError(f"{source} names no directory")
        return Path(value).expanduser().absolute()
    if key == "bind":
        return bind_address(value, source)
    if key == "relay":
        from urllib.parse import urlsplit

        try:
            parts = urlsplit(value)
            good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            good = False
        if not good:
            raise LocalError(f"{source} is {value[:60]!r}; a relay is a URL, as in https://relay.example.net")
    if key == "server":
        from quicprochat.core.address import check_server

        try:
            return check_server(value)
        except LocalError as error:
            raise LocalError(f"{source}: {error}") from None
    return value


def bind_address(text: str, source: str) -> Address:
    """Read ``IP:PORT``; port 0 is any free one. Raises: LocalError that names the source."""
    from quicprochat.core.address import Address

    host, _, port = text.rpartition(":")
    try:
        if port == "0":  # any free port, of this address
            return Address(Address.parse(f"{host}:1").ip, 0)
        return Address.parse(text)
    except LocalError as error:
        raise LocalError(f"{source}: {error}") from None


def default_home(environment: Mapping[str, str]) -> Path:
    """Return the home in the user's data directory (XDG base directories: a relative one is ignored)."""
    data = environment.get("XDG_DATA_HOME", "")
    base = Path(data) if os.path.isabs(data) else Path(os.path.expanduser("~/.local/share"))
    return base / "quicprochat"
