"""The processes of a run on this machine: detectron2's launcher, or a launcher outside."""

import logging
import multiprocessing
import os
import sys

import torch
from detectron2.engine import launch
from detectron2.engine.launch import DEFAULT_TIMEOUT
from detectron2.utils import comm
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from eva_detection.command_line import TrainingRequest
from eva_detection.config.settings import load_config
from eva_detection.training.train import DetectionRun
from eva_runs.commands import program_name, quiet_libraries
from eva_runs.errors import exit_on_error, print_error, stderr_from_main_process
from eva_runs.interruption import EXIT_KEYBOARD, EXIT_RUN_AGAIN, StopSignal
from eva_runs.processes import gather, join_group


def start(request: TrainingRequest) -> int:
    """Carry out a training or an evaluation: in this process, or in all of this machine.

    A process that a launcher has started joins the others in its place.
    """
    if request.processes == 1:
        return _run(request)
    with stderr_from_main_process(), exit_on_error(program_name("train_net.py")):
        cfg, *_ = load_config(request)  # one says what is wrong; each reads the data again
    gpus = torch.cuda.device_count() if cfg.train.device != "cpu" else 0
    last = int(os.environ["LOCAL_RANK"]) if request.launched else request.num_gpus - 1
    if 0 < gpus <= last:
        raise ValueError(f"process {last} of this machine has no GPU: there are {gpus}")
    if request.launched:
        _join(last, on_gpu=gpus > 0)
        return _run(request)
    if not gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # else detectron2 exchanges by NCCL
    name, machines = program_name("train_net.py"), (request.num_machines, request.machine_rank)
    # it says which process it ends
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
    stop = StopSignal()
    try:
        with stop.listen(to_children=True):
            launch(_run, request.num_gpus, *machines, request.dist_url, (request,))
    except KeyboardInterrupt:
        for child in multiprocessing.active_children():  # which have it, too
            child.join(5)
            child.kill()
        sys.exit(EXIT_KEYBOARD)
    except ProcessExitedException as error:
        if stop.requested:  # before the process listened itself: nothing is lost
            sys.exit(EXIT_RUN_AGAIN)
        if not error.signal_name:
            sys.exit(error.exit_code)
        reason = "which the system sends for want of memory, for example"
        print_error(f"{name}: {error}, {reason}")
        sys.exit(1)
    except ProcessRaisedException as error:  # as the processes find each other
        reason = str(error).strip().splitlines()[-1]
        raise ConnectionError(f"no processes by --dist-url {request.dist_url}: {reason}") from None
    return 0


def _run(request: TrainingRequest) -> int:
    quiet_libraries()
    return DetectionRun(request).run()


def _join(local_rank: int, *, on_gpu: bool) -> None:
    """Join the process group of a launcher, as detectron2's `launch` does."""
    join_group("nccl" if on_gpu else "gloo", timeout=DEFAULT_TIMEOUT)
    if on_gpu:
        torch.cuda.set_device(local_rank)
    here = max(gather(local_rank)) + 1  # of Slurm, which sets no LOCAL_WORLD_SIZE
    comm.create_local_process_group(int(os.environ.get("LOCAL_WORLD_SIZE", here)))
