"""Waiting for what becomes of a message."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from tests.conformance.rows import sent

from quicprochat.core.errors import UnavailableError
from quicprochat.core.events import Accepted, StateChanged
from quicprochat.core.gate import Reason
from quicprochat.core.receipt import State
from quicprochat.core.store import Sent
from quicprochat.p2p.outgoing import Outgoing


def test_a_change_while_the_state_is_being_asked_for_is_not_missed() -> None:
    async def scenario() -> None:
        message = sent("a")
        answers = [message, replace(message, state=State.DELIVERED)]

        async def call(_: Any) -> Sent:
            answer = answers.pop(0)
            if answers:
                outgoing.changed(StateChanged(message.uid, message.to, State.DELIVERED, ""))
            return answer

        anything: Any = None
        driver: Any = SimpleNamespace(call=call)
        outgoing = Outgoing(anything, driver, anything, anything, anything, anything)
        assert (await outgoing.wait(message.uid, State.DELIVERED, 10)).state is State.DELIVERED

    asyncio.run(scenario())


def test_nobody_waits_for_a_node_that_has_stopped() -> None:
    """A last effect may come after the stop, and what it says would be at hand for ever."""

    async def scenario() -> None:
        message = sent("a")
        anything: Any = None
        outgoing = Outgoing(anything, anything, anything, anything, anything, anything)
        outgoing.stop()
        outgoing.accepted(Accepted(message.uid, Reason.NONE, message))
        with pytest.raises(UnavailableError, match="has stopped"):
            await outgoing.wait(message.uid, State.DELIVERED, 10)

    asyncio.run(scenario())
