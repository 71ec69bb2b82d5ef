"""When the machine's clock is believed: the kernel is asked anew as soon as there is a reason to."""

from __future__ import annotations

import pytest

from quicprochat.adapters import system
from quicprochat.core.time import HOUR_MS, WALL_FLOOR


class Machine:
    """Two clocks and a kernel that vouches for one of them; counts how often it is asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.since_boot, self.wall, self.synchronised, self.asked = 5_000, WALL_FLOOR + HOUR_MS, True, 0
        monkeypatch.setattr(system, "_since_boot_ms", lambda: self.since_boot)
        monkeypatch.setattr("time.time_ns", lambda: self.wall * 1_000_000)
        monkeypatch.setattr(system, "kernel_synchronised", self._answer)

    def _answer(self) -> bool:
        self.asked += 1
        return self.synchronised

    def pass_time(self, ms: int) -> None:
        self.since_boot += ms
        self.wall += ms


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def test_the_kernel_is_asked_once_a_second(machine: Machine) -> None:
    clock = system.SystemClock(None)
    for _ in range(10):
        assert clock.now().trusted
        machine.pass_time(99)
    assert machine.asked == 1
    machine.synchronised = False
    machine.pass_time(10)
    assert not clock.now().trusted
    assert machine.asked == 2


@pytest.mark.parametrize("by", [-HOUR_MS // 2, -2, 2, HOUR_MS])
def test_a_clock_set_by_hand_is_not_believed_for_a_moment(machine: Machine, by: int) -> None:
    clock = system.SystemClock(None)
    assert clock.now().trusted
    machine.synchronised = False  # as settimeofday(2) leaves it
    machine.wall += by
    assert not clock.now().trusted


def test_clocks_that_tick_in_turn_are_no_reason_to_ask(machine: Machine) -> None:
    clock = system.SystemClock(None)
    for since, wall in ((1, 0), (0, 1), (0, 1), (1, 0)):
        clock.now()
        machine.since_boot += since
        machine.wall += wall
    assert machine.asked == 1


def test_a_clock_put_right_by_a_time_server_is_believed_at_once(machine: Machine) -> None:
    machine.wall, machine.synchronised = 0, False
    clock = system.SystemClock(None)
    assert not clock.now().trusted
    machine.wall, machine.synchronised = WALL_FLOOR + HOUR_MS, True
    assert clock.now().trusted
