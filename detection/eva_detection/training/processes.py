"""The processes of a run: how they start, and leave an evaluation together."""

import argparse
import contextlib
import itertools
import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import torch.distributed
from detectron2.engine import launch
from detectron2.utils import comm
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from eva_runs.commands import complain, program_name
from eva_runs.interruption import EXIT_KEYBOARD, EXIT_RUN_AGAIN
from eva_runs.processes import OtherProcessError

_POLL_SECONDS = 0.2
_DONE, _STOPPED = b"done", b"stopped by a signal"


class Evaluations:
    """Evaluations that the other processes leave once the main process has scored.

    Otherwise the others would sit in a barrier, and NCCL's timeout end them, while LVIS is scored.
    Here they poll the key-value store of the process group, which needs no shared folder, lets
    signals through, says that the main process has failed, and is gone if it was killed, because
    it serves the store (under torchrun the launcher does, and ends the others itself).

    Args:
        evaluate: Returns the scores on the main process; called on all, which evaluate together.
    """

    def __init__(self, evaluate: Callable[[], dict[str, Any]]) -> None:
        self._evaluate = evaluate
        self._numbers = itertools.count()

    def __call__(self) -> dict[str, Any]:
        """Evaluate."""
        if comm.get_world_size() == 1:
            return self._evaluate()
        world = torch.distributed.group.WORLD
        assert world is not None
        store, key = world.get_group_store(), f"eva_detection/evaluation/{next(self._numbers)}"
        if not comm.is_main_process():
            results = self._evaluate()
            _wait_for_main_process(store, key)
            return results
        try:
            results = self._evaluate()
        except BaseException as error:
            stopped = isinstance(error, SystemExit) and error.code == EXIT_RUN_AGAIN
            with contextlib.suppress(RuntimeError):  # the first error counts
                store.set(key, _STOPPED.decode() if stopped else f"{type(error).__name__}: {error}")
                time.sleep(3 * _POLL_SECONDS)  # the store ends with this process
            raise
        store.set(key, _DONE.decode())
        return results


def _wait_for_main_process(store: Any, key: str) -> None:
    try:
        while not store.check([key]):
            time.sleep(_POLL_SECONDS)
        outcome = store.get(key)
    except RuntimeError as error:
        raise RuntimeError(
            "the main process has ended in the evaluation: see its log, and whether the system "
            "has killed it, as for want of memory"
        ) from error
    if outcome == _STOPPED:
        raise SystemExit(EXIT_RUN_AGAIN)
    if outcome != _DONE:
        raise OtherProcessError(
            f"the evaluation has failed on the main process: {outcome.decode()}; see its log"
        )


def start_processes(run: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> None:
    """Start the processes of a run on this machine, and end when they have ended."""
    # which process it ends
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
    name = program_name("train_net.py")
    try:
        launch(
            run,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(args,),
        )
    except KeyboardInterrupt:
        _end_children()
        sys.exit(EXIT_KEYBOARD)
    except ProcessExitedException as error:
        if error.signal_name:
            text = f"process {error.error_index} was ended by {error.signal_name}"
            complain(f"{name}: {text}, which the system sends for want of memory, for example")
        sys.exit(1 if error.signal_name else error.exit_code)
    except ProcessRaisedException as error:  # before `run`, as the processes find each other
        reason = str(error).strip().splitlines()[-1]
        complain(f"{name}: processes cannot start with --dist-url {args.dist_url}: {reason}")
        sys.exit(1)


def _end_children() -> None:
    """End the processes of a run that Ctrl-C has not reached."""
    for patience, number in ((5, signal.SIGINT), (30, signal.SIGKILL)):
        for child in multiprocessing.active_children():
            child.join(patience)
            if child.is_alive() and child.pid is not None:
                os.kill(child.pid, number)
