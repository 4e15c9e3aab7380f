"""Start the processes of a run on this machine, and end when they have ended."""

import argparse
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable

from detectron2.engine import launch
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from eva_detection.training.errors import say
from eva_runs.interruption import EXIT_KEYBOARD


def start_processes(run: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> None:
    """Start the processes of a run on this machine, and end when they have ended.

    Args:
        run: One process.
        args: The command line, for `run`.

    Raises:
        SystemExit: With the code of the first process that does not succeed.
    """
    logging.getLogger("torch.multiprocessing.spawn").setLevel(
        logging.ERROR
    )  # which process it ends
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
            say(
                f"process {error.error_index} was ended by {error.signal_name}, which the system "
                "sends, for example, for want of memory"
            )
            sys.exit(1)
        sys.exit(error.exit_code)
    except ProcessRaisedException as error:  # before `run`, as the processes find each other
        reason = str(error).strip().splitlines()[-1]
        say(f"the processes cannot be started with --dist-url {args.dist_url}: {reason}")
        sys.exit(1)


def _end_children() -> None:
    """End the processes of a run that Ctrl-C has not reached."""
    for patience, number in ((5, signal.SIGINT), (30, signal.SIGKILL)):
        for child in multiprocessing.active_children():
            child.join(patience)
            if child.is_alive() and child.pid is not None:
                os.kill(child.pid, number)
