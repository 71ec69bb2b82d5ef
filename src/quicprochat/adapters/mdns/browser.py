"""Announcing ourselves by multicast DNS, and hearing others do so (RFC 6762, RFC 6763), over python-zeroconf.

Anybody on the link can send any number of announcements. python-zeroconf keeps up to 10,000 records of up to 9 kB for
75 minutes, and its browser a query for each name, so neither is left to it: this listener reads each packet's records
as they come, and takes them out of the cache again at once. What stays there is one PTR record for each instance that
the listener of this one wants to follow, which is how a goodbye and the end of a lifetime are noticed.

No probing: the instance's name is made from the key, so that nobody else has a right to it, and asking first would
cost a newcomer most of a second.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Protocol

from zeroconf import (  # type: ignore[attr-defined]  # public, but for compatibility only left out of __all__
    DNSAddress,
    DNSOutgoing,
    DNSPointer,
    DNSQuestion,
    DNSRecord,
    DNSService,
    DNSText,
    Error,
    IPVersion,
    RecordUpdate,
    RecordUpdateListener,
    ServiceInfo,
    Zeroconf,
    current_time_millis,
)
from zeroconf.asyncio import AsyncZeroconf

from quicprochat.core.address import Address
from quicprochat.core.announcement import SERVICE, TXT_MAX_BYTES, Announcement, Found
from quicprochat.core.errors import UnavailableError
from quicprochat.core.network import Interface

log = logging.getLogger("quicprochat.mdns")

ADDRESSES_MAX = 8
"""Addresses kept of one instance, the newest first: dials that one announcement can cause."""
PARTS_MAX = 64
"""Instances of which only a part was heard; the rest is asked for."""
PARTS_ASKED = 16
"""Such instances asked for in one packet."""
ASKS_MAX = 2
"""How often each is asked for."""
ASK_LAST_S = 300.0
"""The longest pause between two questions who is there. Pauses double from one second (RFC 6762 §5.2)."""

NAME_MAX_CHARS, LABEL_MAX_BYTES = 253, 63
"""RFC 1035 §2.3.4."""

_QUERY, _A, _PTR, _TXT, _AAAA, _SRV, _IN = 0, 1, 12, 16, 28, 33, 1  # RFC 1035 §3.2, 3596, 2782


class Listener(Protocol):
    """Who is told of announcements; called in the event loop."""

    def heard(self, found: Found) -> bool:
        """Take note of an announcement; return whether to follow this instance to its end."""
        ...

    def gone(self, name: str) -> None:
        """A followed instance has said goodbye, or nothing was heard of it for its lifetime."""
        ...

    def settled(self, name: str) -> bool:
        """Say whether an instance need not answer when everybody is asked."""
        ...


class _Instance:
    """What was heard of one instance so far."""

    __slots__ = ("addresses", "asked", "host", "pointer", "port", "text")

    def __init__(self) -> None:
        self.pointer: DNSPointer | None = None
        self.port = 0
        self.host = ""
        self.text: bytes | None = None
        self.addresses: tuple[str, ...] = ()
        self.asked = 0

    @property
    def complete(self) -> bool:
        return bool(self.port and self.addresses) and self.text is not None


class Mdns(RecordUpdateListener):
    """Multicast DNS on some interfaces, from :meth:`open` to :meth:`close`; both may be called again."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._zeroconf: AsyncZeroconf | None = None
        self._announcing: asyncio.Future[Any] | None = None
        self._own: frozenset[DNSRecord] = frozenset()
        self._me: DNSPointer | None = None
        self._followed: dict[str, _Instance] = {}
        self._parts: dict[str, _Instance] = {}
        self._batch: list[DNSRecord] = []
        self._unfollowed: list[DNSPointer] = []
        self._anew = asyncio.Event()

    async def open(self, where: Sequence[Interface]) -> bool:
        """Listen on these interfaces; return whether all of them work, which a very new one may not do yet.

        Raises: UnavailableError when there is no multicast at all.
        """
        await self.close(goodbye=False)
        four = sorted({i.ip for i in where if ":" not in i.ip})
        six = sorted({i.index for i in where if ":" in i.ip and i.index and not i.loopback})
        if not four and not six:
            raise UnavailableError("no interface for multicast")
        version = IPVersion.All if four and six else IPVersion.V6Only if six else IPVersion.V4Only
        try:
            self._zeroconf = AsyncZeroconf(interfaces=[*four, *six], ip_version=version)
            zeroconf = self._zeroconf.zeroconf
            await zeroconf.async_wait_for_start()
        except (OSError, RuntimeError, Error) as error:
            await self.close(goodbye=False)
            raise UnavailableError(f"no multicast on this machine: {error}") from error
        senders = len(zeroconf.engine.senders)
        if not senders:
            await self.close(goodbye=False)
            raise UnavailableError("no interface takes multicast")
        zeroconf.async_add_listener(self, None)
        self._anew.set()
        return senders == len(four) + len(six)

    async def announce(self, name: str, announcement: Announcement, addresses: Sequence[Address]) -> None:
        """Say from now on that we are here; ``name`` is the instance's, and nothing a person chose.

        All addresses need one port, that of the SRV record; those with another are left out.
        """
        if self._zeroconf is None or not addresses:
            return
        port = addresses[0].port
        packed = [ipaddress.ip_address(a.ip).packed for a in addresses if a.port == port]
        info = ServiceInfo(
            SERVICE, f"{name}.{SERVICE}", port, properties=announcement.encode(), server=f"{name}.local.",
            addresses=packed,
        )  # fmt: skip
        self._me = info.dns_pointer()
        self._own = frozenset((self._me, info.dns_service(), info.dns_text(), *info.get_address_and_nsec_records()))
        register = self._zeroconf.async_register_service(info, cooperating_responders=True)
        self._announcing = asyncio.ensure_future(await register)

    async def close(self, *, goodbye: bool = True) -> None:
        """Stop; with a goodbye, others forget us at once. Instances stay followed, for the next :meth:`open`."""
        asyncs, self._zeroconf = self._zeroconf, None
        announcing, self._announcing = self._announcing, None
        self._own, self._me = frozenset(), None
        if announcing is not None:
            announcing.cancel()
            with suppress(asyncio.CancelledError):
                await announcing
        if asyncs is None:
            return
        # Taken out of the registry here, so that closing has nothing left to say three times over half a second.
        farewell = asyncs.zeroconf.generate_unregister_all_services()
        if farewell is not None and goodbye:
            asyncs.zeroconf.async_send(farewell)
        await asyncs.async_close()

    # --- asking

    async def run(self) -> None:
        """Ask who is there, often at first and then seldom, until cancelled."""
        while True:
            self._anew.clear()
            pause = 1.0
            while not self._anew.is_set():
                self.ask()
                await self._wait(pause)
                pause = min(2 * pause, ASK_LAST_S)

    async def _wait(self, pause: float) -> None:
        """Wait; meanwhile ask, each second, for what is missing of instances heard in part."""
        end = asyncio.get_running_loop().time() + pause
        while (left := end - asyncio.get_running_loop().time()) > 0 and not self._anew.is_set():
            self._ask_for_parts()
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left, 1.0) if self._parts else left):
                    await self._anew.wait()

    def browse(self) -> None:
        """Begin to ask anew: we woke up, or moved."""
        self._anew.set()

    def ask(self) -> None:
        """Ask once who is there; instances that need not answer are named in the question (RFC 6762 §7.1)."""
        if self._zeroconf is None:
            return
        out = DNSOutgoing(_QUERY)
        out.add_question(DNSQuestion(SERVICE, _PTR, _IN))
        now = current_time_millis()
        if self._me is not None:
            # Or we would answer ourselves, and then have to keep others waiting: one answer a second (RFC 6762 §6).
            out.add_answer_at_time(self._me, 0)
        for name, instance in self._followed.items():
            pointer = instance.pointer
            if pointer is not None and not pointer.is_stale(now) and self._listener.settled(name):
                out.add_answer_at_time(pointer, now)
        self._send(out)

    def _ask_for_parts(self) -> None:
        wanted = [(name, part) for name, part in self._parts.items() if part.asked < ASKS_MAX][:PARTS_ASKED]
        if not wanted or self._zeroconf is None:
            for name in tuple(self._parts):
                self._drop_part(name)
            return
        out = DNSOutgoing(_QUERY)
        for name, part in wanted:
            part.asked += 1
            asked = [(name, _SRV), (name, _TXT)] if not part.port or part.text is None else []
            asked += [(part.host, _A), (part.host, _AAAA)] if part.port and not part.addresses else []
            for owner, kind in asked:
                out.add_question(DNSQuestion(owner, kind, _IN))
        self._send(out)

    def _drop_part(self, name: str) -> None:
        if (pointer := self._parts.pop(name).pointer) is not None:
            self._unfollowed.append(pointer)

    def _send(self, out: DNSOutgoing) -> None:
        assert self._zeroconf is not None
        with suppress(OSError, Error):  # the interface went away; the next look at interfaces notices
            self._zeroconf.zeroconf.async_send(out)

    # --- hearing

    def forget(self, name: str) -> None:
        """Follow an instance no longer."""
        instance = self._followed.pop(name, None)
        if instance is not None and instance.pointer is not None:
            self._unfollowed.append(instance.pointer)

    def async_update_records(self, zc: Zeroconf, now: float, records: list[RecordUpdate]) -> None:
        """Read the records of one packet, or of what has run out; they are not in the cache yet."""
        self._batch += [update.new for update in records]
        pointed: dict[str, DNSPointer] = {}
        services: dict[str, DNSService] = {}
        texts: dict[str, bytes] = {}
        hosts: dict[str, list[str]] = {}
        for update in records:
            record = update.new
            if isinstance(record, DNSPointer):
                if record.key == SERVICE and record.alias_key.endswith("." + SERVICE) and _sound(record.alias):
                    if not record.is_expired(now):
                        pointed[record.alias_key] = record
                        continue
                    self._parts.pop(record.alias_key, None)
                    if self._followed.pop(record.alias_key, None) is not None:
                        self._listener.gone(record.alias_key)
            elif record.is_expired(now):
                continue
            elif isinstance(record, DNSService) and _sound(record.server):
                services[record.key] = record
            elif isinstance(record, DNSText):
                texts[record.key] = record.text
            elif isinstance(record, DNSAddress) and len(record.address) in (4, 16):
                hosts.setdefault(record.key, []).append(str(ipaddress.ip_address(record.address)))
        for name in dict.fromkeys((*pointed, *self._touched(services, texts, hosts))):
            self._hear(name, pointed.get(name), services.get(name), texts.get(name), hosts)

    def _touched(self, *parts: dict[str, Any]) -> Iterator[str]:
        """Yield the instances known already that these records say something of."""
        services, texts, hosts = parts
        for known in (self._followed, self._parts):
            if not services.keys().isdisjoint(known) or not texts.keys().isdisjoint(known):
                yield from (name for name in (*services, *texts) if name in known)
            if hosts:
                yield from (name for name, instance in known.items() if instance.host in hosts)

    def _hear(
        self, name: str, pointer: DNSPointer | None, service: DNSService | None, text: bytes | None,
        hosts: dict[str, list[str]],
    ) -> None:  # fmt: skip
        instance = self._followed.get(name) or self._parts.pop(name, None) or _Instance()
        instance.pointer = pointer or instance.pointer
        if service is not None:
            instance.port, instance.host = service.port, service.server_key
        if text is not None:
            instance.text = text[: TXT_MAX_BYTES + 1]
        fresh = hosts.get(instance.host, ())
        instance.addresses = tuple(dict.fromkeys((*fresh, *instance.addresses)))[:ADDRESSES_MAX]
        if not instance.complete:
            self._parts[name] = instance
            if len(self._parts) > PARTS_MAX:
                self._drop_part(next(iter(self._parts)))
            return
        announcement = Announcement.parse(instance.text or b"")
        addresses = tuple(Address(ip, instance.port) for ip in instance.addresses)
        self._followed[name] = instance
        if announcement is None or not self._listener.heard(Found(name, announcement, addresses)):
            self.forget(name)

    def async_update_records_complete(self) -> None:
        """Take everything out of the cache that need not be there; only now it is."""
        if self._zeroconf is None:
            return
        cache = self._zeroconf.zeroconf.cache
        batch, self._batch = self._batch, []
        gone, self._unfollowed = self._unfollowed, []
        useless = [record for record in batch if record not in self._own and not self._needed(record)]
        useless += [pointer for pointer in gone if not self._needed(pointer)]
        cache.async_remove_records({record for record in useless if cache.get(record) is not None})

    def _needed(self, record: DNSRecord) -> bool:
        if not isinstance(record, DNSPointer) or record.key != SERVICE:
            return False
        return record.alias_key in self._followed or record.alias_key in self._parts


def _sound(name: str) -> bool:
    """Say whether a name that was received can be sent: read as text, a stranger's bytes may have grown too long."""
    return all(
        len(text) <= NAME_MAX_CHARS
        and all(0 < len(part.encode("utf-8", "replace")) <= LABEL_MAX_BYTES for part in text.split("."))
        for text in (name.removesuffix("."), name.lower().removesuffix("."))
    )
