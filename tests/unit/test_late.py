"""Rows that wait for the end of a transaction."""

from __future__ import annotations

from quicprochat.adapters.sqlite.late import Late

INSERT = "INSERT INTO t"


def filled(count: int) -> Late:
    late = Late()
    for number in range(count):
        late.add(INSERT, number, (number, f"row {number}"))
    return late


def test_rows_leave_in_few_statements_and_in_their_order() -> None:
    late = filled(45)
    taken = list(late.take())
    assert [sql.count("(?, ?)") for sql, _ in taken] == [32, 8, 4, 1]
    assert all(sql.startswith("INSERT INTO t VALUES (?, ?)") for sql, _ in taken)
    assert [value for _, bindings in taken for value in bindings[::2]] == list(range(45))
    assert not late
    assert list(late.take()) == []


def test_of_two_rows_with_one_key_the_later_is_written() -> None:
    late = filled(2)
    late.add(INSERT, 0, (0, "newer"))
    assert late.find(INSERT, 0) == (0, "newer")
    assert [bindings for _, bindings in late.take()] == [[0, "newer", 1, "row 1"]]


def test_what_does_not_wait_is_not_found() -> None:
    late = filled(1)
    assert late.find(INSERT, 5) is None
    assert late.find("INSERT INTO other", 0) is None
    late.clear()
    assert not late
    assert late.find(INSERT, 0) is None


def test_so_many_wait_and_no_more() -> None:
    late = Late()
    enough = [late.add(INSERT, number, (number,)) for number in range(1_024)]
    assert enough.index(True) == 1_023
    list(late.take())
    assert not late.add(INSERT, 0, (0,)), "they were written, and others may wait"
