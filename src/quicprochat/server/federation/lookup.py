"""Names and records of other domains: asked for there, and kept for a while."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from quicprochat.adapters.rpc import Problem
from quicprochat.core.errors import StoreError, UnavailableError
from quicprochat.core.time import Instant
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
