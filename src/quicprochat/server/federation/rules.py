"""What the operator decides about federation, and the bounds of what other domains, and users, may ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from quicprochat.core.address import Address
from quicprochat.core.time import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS
from quicprochat.server.trust import Loaded

VERSION = 1
EPOCH_BYTES = 16
FORGOT_EVERY_MS = HOUR_MS
"""So often at most another domain makes our users offer everything again, by saying that it has forgotten."""
ENVELOPES_MAX = 256
"""Envelopes in one call."""
BATCH_BYTES = 512 << 10
"""Of the envelopes of one call, or a single one that is longer; a message of the RPC protocol has room for four times
as much."""

OFFERED_MAX = 64
"""Of these, what we put into one. Everybody else waits while a batch's answers are written: with 256 a message to
another domain took twice as long beside a long queue."""
FRESH_MAX, FRESH_BYTES = 2_048, 4 << 20
"""What has just come for one domain and is kept in memory until it is sent; the rest is read from the outbox."""
OUT_IN_FLIGHT = 8
"""Batches of one domain sent and not answered: the other server checks some while it writes others. With 4 it did
one after the other, and mail between two domains went a quarter more slowly."""
IN_FLIGHT_MAX = 32
"""Calls of one connection in flight; a peer is told, and one more ends its connection."""
CONNECTIONS_PER_DOMAIN = 4
"""One more ends the oldest: a peer whose address changes leaves connections behind that end only when they are idle."""

CONNECT_S = 10.0
STREAM_S = 10.0
"""How long a peer that proved its domain may take to say its first word."""
CALL_S = 30.0
"""How long a peer may take to answer: a batch has to be checked and stored."""
SILENCE_S = 4.0
"""After so long without an answer the other machine is asked for a sign of life, and given as long again: lost packets
are sent again meanwhile, three times or more."""
LOOK_UP_S = 2.5
"""How long a name or a record is looked for, connecting included: a client waits for it, 3 s at most."""

LOOK_UPS = 16
"""Look-ups under way at one domain: our users together must not have us hung up on for too many calls."""
GREETINGS = 8
"""Domains that a starting server connects to at a time."""
RETRY_FIRST_S, RETRY_LAST_S = 0.5, 300.0
"""Between attempts to reach a domain; each pause is twice the last."""
PUT_OFF_FIRST_MS, PUT_OFF_LAST_MS = 5 * SECOND_MS, 5 * MINUTE_MS
"""Before an envelope is offered again that the destination has no room for."""
UNKNOWN_FIRST_MS, UNKNOWN_LAST_MS = MINUTE_MS, HOUR_MS
"""The same for one whose recipient is unknown there: people register rarely."""
POISON_TRIES = 3
"""An envelope that alone makes a call fail so often is set aside."""

INTERESTS_MAX = 10_000
"""Channels of which one domain may say that its users follow them: all of them go into one call."""
POST_PATIENCE_MS = 1_000
"""How long a post that another domain brought is kept before it is offered on: its own domain has mostly brought it
everywhere by then."""
IDS_MAX = 1_024
"""Ids in one call."""

CORRESPONDENTS_MAX = 100_000
CORRESPONDENT_MS = 15 * DAY_MS
"""A message may travel for 14 days; whoever answers it then still finds back."""
REPORTS_PER_AUTHOR, REPORTS_MAX = 1_000, 100_000
REPORTS_BATCH = 256
REPORT_MS = 14 * DAY_MS

FRESH_MS, STALE_MS, NOT_FOUND_MS = 10 * MINUTE_MS, DAY_MS, MINUTE_MS
"""How long another domain's answer is taken for news, how long for better than nothing, and how long a "nobody"."""
ANSWERS_MAX = 4_096
"""Answers of other domains that are kept."""


@dataclass(frozen=True, slots=True)
class FederationRules:
    """Bounds an operator may change while the server runs (sizes are guesses for a small computer)."""

    outbox_bytes: int = 512 << 20
    """Mail that waits for one domain."""
    outbox_messages: int = 500_000
    user_bytes: int = 32 << 20
    """Mail of one user that waits for one domain: nobody fills a dead domain's outbox alone."""
    user_messages: int = 10_000
    share: float = 0.25
    """Part of the server's storage that one other domain, or one of its authors, may fill."""
    rate: int = 20_000
    """Envelopes a second from one domain; what is above that waits for its answer."""


@dataclass(frozen=True, slots=True)
class FederationOptions:
    """Whom we exchange messages with. Everything but ``domain`` and ``listen`` may change while the server runs."""

    domain: str
    """The one we speak for."""
    listen: Address
    loaded: Loaded
    """What proves to others that we do, and what we take for a proof."""
    peers: Mapping[str, str] = field(default_factory=dict)
    """Each domain, and the ``host:port`` of its server; empty where it is not known."""
    rules: FederationRules = field(default_factory=FederationRules)
    channels: frozenset[str] = frozenset()
    """The domains with which channels are shared, where they name us too."""
