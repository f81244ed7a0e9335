"""Who comes first is served first."""

from __future__ import annotations

import threading
import time

import pytest

from latentrt.runtime.device.turns import Turns


def test_threads_get_their_turns_in_the_order_in_which_they_came() -> None:
    turns = Turns()
    order: list[int] = []
    threads: list[threading.Thread] = []

    def take(number: int) -> None:
        with turns.turn():
            order.append(number)

    with turns.turn():
        for number in range(8):
            threads.append(threading.Thread(target=take, args=(number,)))
            threads[-1].start()
            while len(turns._waiting) <= number:
                time.sleep(1e-4)
        assert order == []
    for thread in threads:
        thread.join()
    assert order == list(range(8))


def test_one_at_a_time() -> None:
    turns = Turns()
    inside: list[int] = []
    most: list[int] = []

    def take() -> None:
        for _ in range(200):
            with turns.turn():
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 800
    assert max(most) == 1


def test_a_turn_may_be_taken_inside_of_itself_and_ends_with_the_outer_one() -> None:
    turns = Turns()
    entered = threading.Event()

    def take() -> None:
        with turns.turn():
            entered.set()

    thread = threading.Thread(target=take)
    with turns.turn():
        with turns.turn():
            thread.start()
        assert not entered.wait(0.05)
    thread.join()
    assert entered.is_set()


def test_a_failed_turn_is_passed_on() -> None:
    turns = Turns()
    with pytest.raises(ZeroDivisionError), turns.turn():
        raise ZeroDivisionError
    taken = threading.Event()

    def take() -> None:
        with turns.turn():
            taken.set()

    threading.Thread(target=take, daemon=True).start()
    assert taken.wait(60)
