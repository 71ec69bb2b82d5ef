"""Names and records of other domains: asked for there, and kept for a while."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from quicprochat.adapters.rpc import Problem
from quicprochat.core.crypto import Crypto
from quicprochat.core.errors import LocalError, StoreError, UnavailableError, WireError
from quicprochat.core.ids import PeerKey
from quicprochat.core.record import open_record
from quicprochat.core.time import Instant
from quicprochat.server.federation.client import FederationClient
from quicprochat.server.federation.routing import plain
from quicprochat.server.federation.rules import ANSWERS_MAX, FRESH_MS, NOT_FOUND_MS, STALE_MS

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """What a domain said, and when: a value, or that there is none."""

    at: Instant
    value: T | None
    problem: str = ""


class Answers(Generic[T]):
    """A bounded memory of one kind of answer; it is forgotten with the process, and asked for again.

    What is fresh is used without asking. What is older is used when the domain cannot be reached, and with it comes
    how old it is. That there is nothing is believed for a minute only: people register.
    """

    def __init__(self, now: Callable[[], Instant]) -> None:
        self._now = now
        self._known: dict[tuple[str, bytes], Answer[T]] = {}  # least recently asked for first

    def __len__(self) -> int:
        return len(self._known)

    async def find(self, domain: str, what: bytes, ask: Callable[[], Awaitable[T]]) -> tuple[T, int]:
        """Return an answer and its age in milliseconds. Raises: Problem, the domain's own or that it is silent."""
        key = domain, what
        known = self._known.pop(key, None)
        if known is not None:
            self._known[key] = known
            age = self._now() - known.at
            if known.value is None and age < NOT_FOUND_MS:
                raise Problem(known.problem, "not_found")
            if known.value is not None and age < FRESH_MS:
                return known.value, age
        try:
            value = await ask()
        except Problem as problem:
            if problem.code == "not_found":
                self._keep(key, Answer(self._now(), None, str(problem)))
                raise
            return self._stale(known, problem)
        except StoreError:
            raise
        except UnavailableError as error:
            return self._stale(known, error)
        self._keep(key, Answer(self._now(), value))
        return value, 0

    def forget(self, domain: str) -> None:
        """Forget what a domain said: the operator trusts it no more, or another authority."""
        for key in [key for key in self._known if key[0] == domain]:
            del self._known[key]

    def _keep(self, key: tuple[str, bytes], answer: Answer[T]) -> None:
        self._known.pop(key, None)
        while len(self._known) >= ANSWERS_MAX:
            del self._known[next(iter(self._known))]
        self._known[key] = answer

    def _stale(self, known: Answer[T] | None, error: Problem | UnavailableError) -> tuple[T, int]:
        if known is not None and known.value is not None and (age := self._now() - known.at) < STALE_MS:
            return known.value, age
        raise error


class LookUps:
    """Asks other domains for a name or a record; ``is_peer`` says which the operator has listed."""

    def __init__(
        self,
        client: FederationClient,
        domain: str,
        is_peer: Callable[[str], bool],
        crypto: Crypto,
        now: Callable[[], Instant],
    ) -> None:
        self._client = client
        self._domain = domain
        self._is_peer = is_peer
        self._crypto = crypto
        self._records: Answers[tuple[bytes, int]] = Answers(now)
        self._names: Answers[PeerKey] = Answers(now)

    async def find_record(self, domain: str, key: PeerKey) -> tuple[bytes, int]:
        """Return a key's record as its domain's server has it, and its age; empty for none.

        Raises: QuicprochatError.
        """
        domain = self._listed(domain)

        async def ask() -> tuple[bytes, int]:
            data, age = await self._client.find_record(domain, key)
            if data:
                try:
                    record = open_record(data, self._crypto)
                except WireError as error:
                    raise UnavailableError(f"{domain} has sent a record that is none: {error}") from error
                if record.key != key:
                    raise UnavailableError(f"{domain} has sent somebody else's record", retryable=False)
            return data, age

        (data, age), since = await self._records.find(domain, key, ask)
        return data, (age + since if data else 0)

    async def find_name(self, domain: str, name: str) -> PeerKey:
        """Return whose name this is, by that domain's word. Raises: QuicprochatError."""
        domain = self._listed(domain)
        found, _ = await self._names.find(domain, name.encode(), lambda: self._client.find_name(domain, name))
        return found

    def forget(self, domain: str) -> None:
        """Forget what a domain said."""
        self._records.forget(domain)
        self._names.forget(domain)

    def _listed(self, domain: str) -> str:
        domain = plain(domain)
        if not self._is_peer(domain):
            raise LocalError(f"{self._domain} exchanges no messages with this domain; ask its operator", code="policy")
        return domain
