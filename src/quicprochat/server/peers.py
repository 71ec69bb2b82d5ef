"""The tables of federation in the configuration: which domains, where their servers are, and whom to believe."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quicprochat.core.address import Address, check_server
from quicprochat.core.domain import parse_domain
from quicprochat.core.errors import LocalError
from quicprochat.server.options import BY_KEY, PEERS_MAX

Tables = Mapping[str, Mapping[str, str]]


def read_peers(tables: Tables, file: Path | None) -> dict[str, str]:
    """Return the domains of ``[federation_peers]``, and ``host:port`` or "" for each. Raises: LocalError."""
    written = _by_domain("federation_peers", tables, file)
    if len(written) > PEERS_MAX:
        raise LocalError(f"[federation_peers] in {file} has {len(written)} domains; {PEERS_MAX} are allowed")
    for domain, server in written.items():
        try:
            written[domain] = check_server(server) if server else ""
        except LocalError:
            raise LocalError(
                f"[federation_peers] in {file}: {server[:60]!r} is no server of {domain}: write host:port, as in"
                ' 192.0.2.1:7001, or "" if it calls us'
            ) from None
    return written


def read_cas(tables: Tables, file: Path | None) -> dict[str, Path]:
    """Return the domains of ``[federation_cas]`` and their files. Raises: LocalError."""
    written = _by_domain("federation_cas", tables, file)
    if empty := [domain for domain, path in written.items() if not path]:
        raise LocalError(f"[federation_cas] in {file} names no file for {empty[0]}")
    base = file.parent if file else Path.cwd()
    return {domain: base / Path(path).expanduser() for domain, path in written.items()}


def _by_domain(table: str, tables: Tables, file: Path | None) -> dict[str, str]:
    found: dict[str, str] = {}
    for text, value in tables.get(table, {}).items():
        try:
            domain = parse_domain(text)
        except LocalError as error:
            raise LocalError(f"[{table}] in {file}: {error}") from None
        if domain in found:
            raise LocalError(f"[{table}] in {file} names {domain} twice")
        found[domain] = value
    return found


def check(values: Mapping[str, Any], file: Path | None, peers: Mapping[str, str], cas: Mapping[str, Path]) -> None:
    """Refuse what is wrong only in company. Raises: LocalError."""
    own = values["federation_domain"]
    if own in peers:
        raise LocalError(f"[federation_peers] in {file} names {own}, which is this server's own domain")
    if strange := sorted(cas.keys() - peers.keys()):
        # A misspelt domain here would leave the right one to the authority of all.
        raise LocalError(
            f"[federation_cas] in {file} names {strange[0]}, which is not in [federation_peers]; write it alike in both"
        )
    if unknown := sorted(set(values["federation_channels"]) - peers.keys()):
        raise LocalError(
            f"federation_channels names {unknown[0]}, which is not in [federation_peers]; write it alike in both"
        )
    if not values["federation_enabled"]:
        return
    if not own:
        raise LocalError("federation needs the domain that this server speaks for: --domain, or federation_domain")
    for key in ("federation_cert", "federation_key", "federation_ca"):
        if values[key] is None:
            raise LocalError(
                f"federation needs {key} ({BY_KEY[key].env}): qpc-server cert issue makes it; or turn federation off:"
                " federation_enabled = false"
            )
    if values["federation_listen"] is None:
        raise LocalError("federation_listen is empty: name an address, as in [::]:7001")
    if _clash(values["listen"], values["federation_listen"]):
        raise LocalError(
            f"listen and federation_listen both have port {values['listen'].port}: clients and servers are shown"
            " different certificates, so each needs a port of its own"
        )


def _clash(one: Address, other: Address) -> bool:
    ips = {one.ip, other.ip}
    return one.port == other.port != 0 and (len(ips) == 1 or any(ipaddress.ip_address(ip).is_unspecified for ip in ips))
