"""Work in processes: the order, a dead process, Ctrl-C, one process, the progress bar."""

import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from eva_data.pools import _interrupt_later, ordered_map

WORK = """
import os
import time

def square(name, number):
    if number == 0:
        time.sleep(0.3)  # the first comes last
    return number * number, os.getpid(), name


def square_or_die(name, number):
    if number in (0, 5, 6, 19):
        os.kill(os.getpid(), 9)
    return number * number, os.getpid(), name


class Deadly:
    def __reduce__(self):
        return os._exit, (3,)


def refuse(number):
    raise ValueError(f"number {number} is refused")
"""


@pytest.fixture
def work(tmp_path, monkeypatch):
    """Module of functions that other processes can import, wherever pytest was started."""
    (tmp_path / "work_of_pools.py").write_text(WORK)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("work_of_pools")
    del sys.modules["work_of_pools"]


def test_results_come_in_order_from_processes_that_have_begun(work):
    settings = {"workers": 2, "title": "numbers", "chunk": 1, "shared": ("a",)}
    results = list(ordered_map(work.square, range(6), **settings))
    assert [square for square, _, _ in results] == [0, 1, 4, 9, 16, 25]
    assert os.getpid() not in {process for _, process, _ in results}
    assert {shared for _, _, shared in results} == {"a"}


def test_a_killed_process_is_one_sentence():
    message = r"^one of 2 processes died, perhaps for lack of memory; give fewer --workers$"
    signals = [0, 0, 0, int(signal.SIGKILL), 0, 0, 0, 0]
    with pytest.raises(ValueError, match=message):
        list(ordered_map(signal.raise_signal, signals, workers=2, title="signals", chunk=1))
    assert not _children()


def test_who_stops_early_waits_for_what_has_begun_alone():
    results = ordered_map(time.sleep, [0.0] + [0.05] * 400, workers=2, title="sleeps", chunk=1)
    next(iter(results))
    results.close()  # 400 would take 10 s, and nothing would end them
    assert not _children()


def test_work_that_kills_its_process_is_known(work):
    """The first, two in a row, the last: each is named, and no other is lost or done for it."""
    settings = {"workers": 2, "title": "numbers", "shared": ("a",), "died": lambda number: -number}
    results = list(ordered_map(work.square_or_die, range(20), **settings))
    assert [r if isinstance(r, int) else r[0] for r in results] == [
        -number if number in (0, 5, 6, 19) else number * number for number in range(20)
    ]
    survived = [result for result in results if not isinstance(result, int)]
    assert os.getpid() not in {process for _, process, _ in survived}
    assert {shared for _, _, shared in survived} == {"a"}
    assert not _children()


def _children():
    """Processes that this one has started and that have not ended."""
    listing = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    if not listing.exists():
        pytest.skip("this system does not list the children of a process")
    alive = []
    for child in listing.read_text().split():
        command = Path(f"/proc/{child}/cmdline").read_bytes()
        if b"spawn_main" in command:
            alive.append(child)
    return alive


@pytest.mark.parametrize("state", ["start", "work"])
def test_interrupted_from_outside_it_ends_its_processes(tmp_path, state):
    """Ctrl-C on a terminal goes to all: the parent alone answers, and nothing is left running."""
    program = tmp_path / "program.py"
    program.write_text(
        "import sys, time\n"
        "if __name__ == '__mp_main__' and 'start' in sys.argv:\n"
        "    print('starts', flush=True)\n"
        "    time.sleep(1)\n"
        "from eva_runs.commands import Command\n"
        "from eva_data.pools import ordered_map\n"
        "def run(_):\n"
        "    for _ in ordered_map(time.sleep, [0.05] * 400, workers=2, title='sleeps', chunk=1):\n"
        "        print('one', flush=True)\n"
        "if __name__ == '__main__':\n"
        "    sys.exit(Command('error', list, run)([]))\n"
    )
    process = subprocess.Popen(
        [sys.executable, str(program), state],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.readline()
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate()
    # The pipes of its processes are closed too, or this would have waited for them.
    assert (process.returncode, len(error.splitlines())) == (130, 1)


def test_an_interrupt_waits_for_the_end_of_a_block_whatever_thread_takes_it():
    """A progress bar's thread, or a library's, has its own mask."""
    thread = threading.Thread(target=time.sleep, args=(0.3,))
    thread.start()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    ended = []

    def run_block():
        with _interrupt_later():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)
            ended.append(True)

    try:
        with pytest.raises(KeyboardInterrupt):
            run_block()
    finally:
        signal.signal(signal.SIGINT, before)
        thread.join()
    assert ended
