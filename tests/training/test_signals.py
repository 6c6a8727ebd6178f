from __future__ import annotations

import signal
import threading

import pytest

from diffusion_lm.training.trainer import stop_request


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_a_request(number):
    before = signal.getsignal(number)
    with stop_request() as stop:
        assert stop == []
        signal.raise_signal(number)
        assert stop == [number]
    assert signal.getsignal(number) is before


def test_the_second_one_acts_as_usual(request):
    # A shell that starts the tests in the background has SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    with pytest.raises(KeyboardInterrupt), stop_request() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop == [signal.SIGINT]
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_thread_can_train_too():
    seen = []

    def run():
        with stop_request() as stop:
            seen.extend([stop])

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [[]]
