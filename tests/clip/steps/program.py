"""What a test's processes do (see tests/launcher.py): steps, or a training run."""

import json
from pathlib import Path

import small_clip
import torch
from safetensors.torch import save_file

from eva_contrastive.steps.losses import build_loss
from eva_contrastive.steps.step import ContrastiveStep
from eva_engine import distributed
from eva_engine.commands.endings import ending
from eva_engine.config import OptimizerConfig, RunConfig
from eva_engine.loop import TrainingRun
from eva_engine.steps.parameter_groups import ParameterGroup


def steps(case):
    """A step of each kind; the first process writes gradients, and each what it has measured."""
    rank, processes = distributed.rank(), distributed.world_size()
    for kind, accumulate in case["kinds"]:
        folder = Path(case["output"], f"{kind}_{accumulate}")
        folder.mkdir(exist_ok=True)
        model = small_clip.make_clip(sigmoid=kind == "sigmoid")
        engine = small_clip.make_engine(model, folder, accumulate=accumulate)
        batches = small_clip.micro_batches(
            small_clip.Pairs(), accumulate=accumulate, rank=rank, processes=processes
        )
        measured = small_clip.run_step(engine, kind, batches)
        (folder / f"measured{rank}.json").write_text(json.dumps(measured))
        if rank == 0:
            save_file(small_clip.gradients(model), folder / "gradients.safetensors")


def train(case):
    """A training run of a few steps."""
    torch.manual_seed(0)
    model = small_clip.make_clip(sigmoid=case["loss"] == "sigmoid")
    TrainingRun(
        model=model,
        samples=small_clip.Pairs(32),
        step_fn=ContrastiveStep(build_loss(case["loss"])),
        run=RunConfig(output=Path(case["output"]), workers=0, tensorboard=False, **case["run"]),
        optimizer=OptimizerConfig(lr=3e-2, eps=1e-2),  # gradients of rounding errors do not count
        config={},
        groups=[ParameterGroup(name="all", params=list(model.parameters()))],
        device=torch.device("cpu"),
        limits={"text.logit_scale": (2.65, 3.0)},
    ).start()


def main(arguments):
    command, case = arguments
    with ending(command):
        distributed.start("cpu")
        {"steps": steps, "train": train}[command](json.loads(case))
        distributed.stop()
