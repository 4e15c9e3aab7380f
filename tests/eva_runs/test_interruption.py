import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from eva_runs.interruption import (
    EXIT_RUN_AGAIN,
    StopSignal,
    ignore_signals_in_worker,
    run_step,
)


@pytest.fixture(autouse=True)
def _handlers():
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_noted_and_then_without_effect(number):
    stop = StopSignal()
    with stop.listen():
        assert not stop.requested
        os.kill(os.getpid(), number)
        assert stop.received == number.name
    os.kill(os.getpid(), number)  # would end this process
    assert signal.getsignal(number) is signal.SIG_IGN


def test_ctrl_c_is_noted_once_and_a_second_one_ends_at_once(monkeypatch, capfd):
    clock = iter((1.0, 1.5, 3.0, 5.0))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    stop = StopSignal()
    with stop.listen():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)  # the same one, which a launcher passes on
        assert stop.received == "Ctrl-C"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):  # while the process ends, too
        os.kill(os.getpid(), signal.SIGINT)
    assert capfd.readouterr().err.count("Ctrl-C: ") == 1


def test_with_nothing_to_save_a_signal_ends_the_process_at_once():
    stop = StopSignal()
    with stop.listen():
        stop.exit_at_once()
        with pytest.raises(SystemExit) as ended:
            os.kill(os.getpid(), signal.SIGTERM)
    assert ended.value.code == EXIT_RUN_AGAIN
    with pytest.raises(SystemExit):
        stop.exit_at_once()


def test_workers_leave_all_three_signals_to_the_run():
    ignore_signals_in_worker()
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        os.kill(os.getpid(), number)  # would end this process


def test_a_signal_reaches_the_step(tmp_path):
    begun = tmp_path / "begun"
    program = (
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGUSR1, lambda *_: sys.exit(75))\n"
        f"pathlib.Path({str(begun)!r}).touch()\n"
        "time.sleep(10)"
    )

    def stop():
        while not begun.exists():
            pass
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

    before = signal.getsignal(signal.SIGUSR1)
    threading.Thread(target=stop, daemon=True).start()
    assert run_step([sys.executable, "-c", program], environment={}) == 75
    assert signal.getsignal(signal.SIGUSR1) == before


def test_a_signal_before_there_is_a_step_reaches_it(monkeypatch):
    start = subprocess.Popen

    def late(*command, **settings):
        os.kill(os.getpid(), signal.SIGTERM)
        return start(*command, **settings)

    monkeypatch.setattr(subprocess, "Popen", late)
    assert run_step(["sleep", "60"], environment={}) == 128 + signal.SIGTERM
