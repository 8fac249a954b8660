"""Signals: the loop finishes its step, saves and leaves; a second one stops at once."""

import hashlib
import logging
import os
import signal
import threading
import time

import pytest
from toy_loops import Recorder, Runner, loop, signal_at

from training.interruption import Interrupted
from training.saves import RunFolder


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_signals_save_and_leave(tmp_path, number):
    before = signal.getsignal(number)
    backend, folder = Recorder(), RunFolder(tmp_path, "pytorch", 2)
    Runner.watch(backend, signal_at(2, number))
    with pytest.raises(Interrupted, match=f"{number.name} received: saved .*ckpt-3 after step 3 of 7"):
        loop(backend, folder).run()
    assert folder.steps() == [2, 3]
    assert signal.getsignal(number) is before


@pytest.fixture
def usual_interrupt():
    """Ctrl-C as on a terminal; a process that a shell started in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_second_signal_acts_at_once(tmp_path, usual_interrupt):
    backend, folder = Recorder(), RunFolder(tmp_path, "pytorch", 2)
    Runner.watch(backend, lambda step: [signal.raise_signal(signal.SIGINT) for _ in range(2)])
    with pytest.raises(KeyboardInterrupt):
        loop(backend, folder).run()
    assert backend.calls == [] and folder.steps() == []


def during_one_long_call(*numbers):
    """Sends the signals, a tenth of a second apart, while no Python handler can run; returns when that began and ended.

    It takes a second or so, and like a framework's product it frees the GIL.
    """
    senders = [threading.Timer(0.1 * i, os.kill, (os.getpid(), number)) for i, number in enumerate(numbers, 1)]
    begin = time.time()
    for sender in senders:
        sender.start()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 1_500_000)
    return begin, time.time()


def test_a_signal_is_acknowledged_when_it_comes(tmp_path, caplog):
    times = []
    backend, folder = Recorder(), RunFolder(tmp_path, "pytorch", 2)
    Runner.watch(backend, lambda step: times.extend(during_one_long_call(signal.SIGTERM)) if step == 2 else None)
    with caplog.at_level(logging.INFO, "twinquant"), pytest.raises(Interrupted):
        loop(backend, folder).run()
    told = [record for record in caplog.records if "SIGTERM" in record.message]
    assert [record.message for record in told] == ["SIGTERM: finishing this step and saving; again stops at once"]
    assert told[0].created < sum(times) / 2, "told after the call that was interrupted"
    assert folder.steps() == [2, 3]


def test_two_signals_in_one_long_call_are_two(tmp_path, usual_interrupt):
    backend, folder = Recorder(), RunFolder(tmp_path, "pytorch", 2)
    Runner.watch(backend, lambda step: during_one_long_call(signal.SIGINT, signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        loop(backend, folder).run()
    assert backend.calls == [] and folder.steps() == []
