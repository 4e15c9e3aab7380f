"""A small CLIP, pairs for it, and steps of its training as the loop carries them out.

The tests' own process and the others (`program.py`) share it.
"""

import json

import torch
from safetensors.torch import save_file
from torch import nn

from eva_contrastive.model.eva_clip import EvaClip, TextTower, VisionTower
from eva_contrastive.step import ContrastiveStep, build_loss
from eva_engine import distributed
from eva_engine.config import OptimizerConfig, RunConfig
from eva_engine.steps.engine import TrainingEngine
from eva_engine.steps.micro_batches import MicroBatches, forward_and_backward
from eva_engine.steps.parameter_groups import ParameterGroup
from eva_runs.data_order import Batch

WORDS, LENGTH, SIDE = 40, 8, 28
VISION = {
    "img_size": SIDE, "patch_size": 7, "embed_dim": 32, "depth": 2, "num_heads": 2, "mlp_dim": 48
}  # fmt: skip
TEXT = {"context_length": LENGTH, "vocab_size": WORDS, "width": 24, "depth": 2, "num_heads": 2}


class Pairs:
    """Pairs of noise and random words, always the same ones."""

    def __init__(self, count=16):
        generator = torch.Generator().manual_seed(5)
        self.images = torch.randn(count, 3, SIDE, SIDE, generator=generator)
        self.tokens = torch.randint(1, WORDS - 1, (count, LENGTH), generator=generator)
        self.tokens[:, -1] = WORDS - 1  # the largest is the end of a text

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], self.tokens[index]


def make_clip(*, sigmoid=False, scale=None, **vision):
    """The model in training mode, random everywhere, always the same one."""
    torch.manual_seed(0)
    visual = VisionTower(output_dim=16, **VISION | vision)
    model = EvaClip(visual, TextTower(output_dim=16, sigmoid=sigmoid, **TEXT))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith("text.logit_"):
                offset = 1.0 if "norm" in name or "ln_" in name else 0.0
                offset = offset if name.endswith("weight") else 0.0
                parameter.copy_(offset + 0.2 * torch.randn(parameter.shape))
        if scale is not None:
            model.text.logit_scale.fill_(scale)
    model.text.set_grad_checkpointing(vision.get("activation_checkpointing", False))
    return model.train()


def make_engine(model, output, *, accumulate=1, stage=0, precision="fp32", batch_size=1, **limits):
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return TrainingEngine(
        model,
        groups=[ParameterGroup(name="all", params=trained)],
        optimizer=OptimizerConfig(lr=1e-3),
        run=RunConfig(output=output, zero_stage=stage, accumulate=accumulate,
                      precision=precision, batch_size=batch_size),
        limits=limits,
    )  # fmt: skip


def micro_batches(pairs, *, accumulate, rank=0, processes=1, seeds=(3, 7)):
    """This process's part of the pairs, as an `ElasticSampler` would cut an unshuffled epoch."""
    size = len(pairs) // (accumulate * processes)
    starts = [(micro * processes + rank) * size for micro in range(accumulate)]
    batches = [
        Batch(
            data=(pairs.images[at : at + size].clone(), pairs.tokens[at : at + size].clone()),
            draws=[],
            unreadable={},
        )
        for at in starts
    ]
    return MicroBatches(iter(batches), count=accumulate, device=torch.device("cpu"), seeds=seeds)


def run_step(engine, kind, batches):
    """Forward and backward passes of a step: means of the loss and the metrics."""
    sums = forward_and_backward(engine, ContrastiveStep(build_loss(kind)), batches)
    return {name: value.item() / len(batches) for name, value in sums.items()}


def gradients(model):
    """Name -> gradient after the backward passes of an engine without ZeRO."""
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def write_steps(folder, *, kinds):
    """A step of each kind; the first process writes gradients, and each what it has measured."""
    rank, processes = distributed.rank(), distributed.world_size()
    for kind, accumulate in kinds:
        place = folder / f"{kind}_{accumulate}"
        place.mkdir(exist_ok=True)
        model = make_clip(sigmoid=kind == "sigmoid")
        engine = make_engine(model, place, accumulate=accumulate)
        batches = micro_batches(Pairs(), accumulate=accumulate, rank=rank, processes=processes)
        measured = run_step(engine, kind, batches)
        (place / f"measured{rank}.json").write_text(json.dumps(measured))
        if rank == 0:
            save_file(gradients(model), place / "gradients.safetensors")


class Recorder(nn.Module):
    """Keeps what a model gives, of each forward pass."""

    def __init__(self, model):
        super().__init__()
        self.model, self.outputs = model, []

    def forward(self, images, tokens):
        output = self.model(images, tokens)
        self.outputs.append(output)
        return output
