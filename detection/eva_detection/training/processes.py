"""The processes of a run: how they start, and leave an evaluation together."""

import argparse
import contextlib
import datetime
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import torch.distributed
from detectron2.engine import launch
from detectron2.utils import comm
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from eva_runs.commands import complain, program_name
from eva_runs.interruption import EXIT_KEYBOARD, EXIT_RUN_AGAIN
from eva_runs.processes import OtherProcessError

_STOPPED = "stopped by a signal"
_PATIENCE = datetime.timedelta(days=30)


class Evaluations:
    """Evaluations that the other processes leave once the main process has scored.

    Otherwise NCCL's timeout would end them while LVIS is scored. Here they wait in a patient group
    on gloo, which also tells them that the main process has failed, and ends with it.
    """

    def __init__(self, evaluate: Callable[[], dict[str, Any]]) -> None:
        self._evaluate = evaluate
        self._group: Any = None
        if comm.get_world_size() > 1:
            self._group = torch.distributed.new_group(backend="gloo", timeout=_PATIENCE)

    def __call__(self) -> dict[str, Any]:
        """Evaluate on all processes together; returns the scores on the main one."""
        try:
            results = self._evaluate()
        except BaseException as error:
            if comm.is_main_process():
                stopped = isinstance(error, SystemExit) and error.code == EXIT_RUN_AGAIN
                with contextlib.suppress(RuntimeError):  # the first error counts
                    self._told(_STOPPED if stopped else f"{type(error).__name__}: {error}")
            raise
        outcome = self._told("")
        if outcome == _STOPPED:
            sys.exit(EXIT_RUN_AGAIN)
        if outcome:
            raise OtherProcessError(f"the evaluation has failed on the main process: {outcome}")
        return results

    def _told(self, outcome: str) -> str:
        """Tell, or be told, how it went on the main process."""
        told = [outcome]
        if self._group is not None:
            torch.distributed.broadcast_object_list(told, src=0, group=self._group)
        return told[0]


def start_processes(run: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> None:
    """Start the processes of a run on this machine, and end when they have ended."""
    # it says which process it ends
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
