"""The server as a process: its log, its signals, and what it tells the service manager."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from quicprochat.adapters import rpc
from quicprochat.adapters.system import monotonic_us, utc_now
from quicprochat.adapters.systemd import Notifier
from quicprochat.console.errors import OK
from quicprochat.console.files import read_keys
from quicprochat.console.text import SafeFormatter
from quicprochat.core.address import Address
from quicprochat.core.errors import QuicprochatError
from quicprochat.core.gate import Limits
from quicprochat.server.announce import Announcer
from quicprochat.server.channels import ChannelRules
from quicprochat.server.config import Config
from quicprochat.server.control import Control
from quicprochat.server.federation.neighbours import Neighbours
from quicprochat.server.federation.rules import FederationOptions, FederationRules
from quicprochat.server.home_server import HomeServer, ServerOptions
from quicprochat.server.members import Registration, Rules
from quicprochat.server.metrics import Metrics
from quicprochat.server.operate import Operator, figures
from quicprochat.server.relaying import RelayFor, RelayOptions
from quicprochat.server.trust import load_trust

log = logging.getLogger("quicprochat.server")

STATUS_S = 30.0
"""How often the service manager gets a line about us."""


def server_options(config: Config) -> ServerOptions:
    """Return what a server is to do; reads the lists of keys. Raises: LocalError, UnavailableError."""
    limits = Limits(
        carried_bytes=config["storage"],
        receipt_bytes=config["receipt_storage"],
        per_recipient=config["messages_per_recipient"],
        per_pair=config["messages_per_pair"],
        share=config["storage_share"],
    )
    rules = Rules(
        Registration(config["registration"]),
        read_keys(config["registration_list"]),
        read_keys(config["block_list"]),
        config["users_max"],
    )
    return ServerOptions(
        config.home, _listen(config), config["federation_domain"], limits, config["connections"],
        config["disk_reserve"], rules, _federation(config), _relay(config),
        ChannelRules(posts=config["channel_posts"], storage=config["channel_storage"]),
    )  # fmt: skip


def _federation(config: Config) -> FederationOptions | None:
    if not config["federation_enabled"]:
        return None
    loaded = load_trust(config, utc_now)
    if loaded.remark:
        log.warning("%s", loaded.remark)
    rules = FederationRules(
        outbox_bytes=config["federation_outbox"],
        user_messages=config["federation_per_user"],
        share=config["federation_share"],
        rate=config["federation_rate"],
    )
    return FederationOptions(
        config["federation_domain"], _listen(config, "federation_listen"), loaded, config.peers, rules,
        frozenset(config["federation_channels"]),
    )  # fmt: skip


def _relay(config: Config) -> RelayOptions | None:
    if config["relay_listen"] is None:
        return None
    serves = RelayFor(config["relay_for"])
    return RelayOptions(config["relay_listen"], serves, config["relay_clients"], config["relay_rate"])


def _listen(config: Config, key: str = "listen") -> Address:
    listen: Address = config[key]
    if config.sources[key] == "default" and not os.path.exists("/proc/net/if_inet6") and sys.platform == "linux":
        return Address("0.0.0.0", listen.port)  # a kernel without IPv6
    return listen


def run(config: Config, load: Callable[[], Config], environment: Mapping[str, str]) -> int:
    """Serve until a signal; ``load`` reads the configuration again. Raises: QuicprochatError."""
    configure_log(verbose=config["verbose"])
    notifier = Notifier(environment)
    try:
        return asyncio.run(_Process(config, load, notifier).run())
    finally:
        notifier.tell("STOPPING=1")
        notifier.close()


def configure_log(*, verbose: bool) -> None:
    """Log to standard error. Who talks to whom is said at debug level only, so not without ``verbose``."""
    if sys.stderr is None:
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(SafeFormatter("%(levelname)s %(name)s: %(message)s" if verbose else "qpc-server: %(message)s"))
    ours = logging.getLogger("quicprochat")
    ours.addHandler(handler)
    ours.setLevel(logging.DEBUG if verbose else logging.INFO)
    ours.propagate = False
    # aioquic speaks of every connection's faults, with addresses, and would do so without being asked.
    for name in ("quic", "zeroconf"):
        theirs = logging.getLogger(name)
        theirs.addHandler(handler if verbose else logging.NullHandler())
        theirs.setLevel(logging.WARNING if verbose else logging.CRITICAL + 1)
        theirs.propagate = False


class _Process:
    """One run."""

    def __init__(self, config: Config, load: Callable[[], Config], notifier: Notifier) -> None:
        self._started = self._config = config
        self._load = load
        self._notifier = notifier
        self._stop = asyncio.Event()
        self._hangup = asyncio.Event()

    async def run(self) -> int:
        """Start, say so, and serve. Raises: QuicprochatError."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._hangup.set)
        async with rpc.running(), HomeServer(server_options(self._config)) as server:
            control = Control(server.home.path, Operator(server).perform)
            metrics = Metrics(lambda: figures(server))
            try:
                await control.start()
                if self._config["metrics_listen"] is not None:
                    log.info("metrics at http://%s/metrics", await metrics.start(self._config["metrics_listen"]))
                self._say_ready(server)
                await self._serve(server)
            finally:
                self._notifier.tell("STOPPING=1")
                log.info("stopping")
                await metrics.close()
                await control.close()
        return OK

    def _say_ready(self, server: HomeServer) -> None:
        log.info("%s", _summary(server))
        with suppress(OSError):  # nobody reads
            os.write(1, f"ready {server.address} {server.fingerprint.hex()}\n".encode())
        self._notifier.tell("READY=1", f"STATUS={_summary(server)}")

    async def _serve(self, server: HomeServer) -> None:
        """Serve until a signal or the store's end. Raises: StoreError."""
        failed = asyncio.create_task(server.failed())
        tasks: list[asyncio.Task[Any]] = [
            failed,
            asyncio.create_task(self._stop.wait()),
            asyncio.create_task(self._reload(server)),
            asyncio.create_task(self._report(server)),
        ]
        if self._config["discovery"]:
            tasks.append(asyncio.create_task(self._announcer(server).run()))
        if self._notifier.watchdog_s:
            tasks.append(asyncio.create_task(self._watchdog(server)))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _announcer(self, server: HomeServer) -> Announcer:
        config = self._started
        return Announcer(
            server.address, config["announce_as"], config["federation_domain"], server.fingerprint,
            server.relay.address.port if server.relay is not None else 0,
            neighbours=Neighbours(server.exchange) if server.exchange is not None else None,
        )  # fmt: skip

    async def _watchdog(self, server: HomeServer) -> None:
        """Say that we live, as long as the loop turns and the store answers."""
        while True:
            await server.driver.call(lambda _: None)
            self._notifier.tell("WATCHDOG=1")
            await asyncio.sleep(self._notifier.watchdog_s)

    async def _report(self, server: HomeServer) -> None:
        while True:
            await asyncio.sleep(STATUS_S)
            self._notifier.tell(f"STATUS={_summary(server)}")

    async def _reload(self, server: HomeServer) -> None:
        while True:
            await self._hangup.wait()
            self._hangup.clear()
            self._notifier.reloading(monotonic_us())
            try:
                config = self._load()
                await server.reload(server_options(config))
            except QuicprochatError as error:
                log.error("not reloaded, everything stays as it was: %s", error)
            else:
                self._tell_changes(config)
            self._notifier.tell("READY=1", f"STATUS={_summary(server)}")

    def _tell_changes(self, config: Config) -> None:
        before, self._config = self._config, config
        changes = [f"{key} = {config[key]}" for key in config.changed(before, live=True)]
        changed = ", ".join(changes + [f"[{table}]" for table in config.changed_tables(before)])
        log.info("reloaded: %s", changed or "no option has changed; the lists were read again")
        if late := config.changed(self._started, live=False):
            log.warning("a restart is needed for: %s", ", ".join(late))


def _summary(server: HomeServer) -> str:
    now = figures(server)
    return (
        f"serving {now['users']} users, {now['connections']} connections, {now['messages']} messages waiting"
        f"{', the disk is almost full' if now['disk_low'] else ''}"
    )
