"""A step of contrastive training beside open_clip's `EVA01-g-14`, same weights, batch and process.

The peer is open_clip's model through timm, with a loop as open_clip's own has it: automatic mixed
precision, torch's AdamW, and with micro-batches all features first, then each micro-batch again.
Ours is the step of `eva_contrastive` through DeepSpeed's engine. First the program makes sure that
both have the same loss and gradients, plain and in micro-batches; then it times both in turn (one
after the other on a GPU, whose memory does not hold both), with the copy of the batch and the
optimizer.

Prints a table with a row for the plain step, for checkpoints of activations, for half of the
patches left out, and for the same batch in 2, 4 and 8 micro-batches with cached features. "Plain"
in a column is our plain step. Peaks count weights, optimizer and activations. Without `--complete`
there are the first blocks of the vision tower and one of the text tower with few words, for a CPU;
our last block computes for the class token alone, which saves much of a tower of two blocks and 2 %
of EVA-CLIP-g, hence the line of FLOPs.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/clip_step.py
    python benchmarks/clip_step.py --complete --batch 64 --precision bf16   # EVA-CLIP-g, on a GPU

Letters: B pairs, k micro-batches.
"""

import argparse
import gc
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from clip_models import (
    LENGTH,
    OPTIMIZER,
    PLAIN,
    Case,
    Pairs,
    Step,
    build_ours,
    build_peer,
    make_batch,
    micro_batches,
    parser_of_towers,
    peer_gradients,
    peer_step,
    peer_weights,
    sized,
)
from measuring import Row, Seconds, by_clock, ratios, show, show_table, timed, with_peak
from torch import Tensor, nn

from eva_contrastive.config import ContrastiveConfig, DataConfig, ModelConfig, TowerConfig
from eva_contrastive.model.eva_clip import EvaClip
from eva_contrastive.step import ContrastiveStep, build_loss, parameter_groups
from eva_engine import distributed
from eva_engine.config import RunConfig
from eva_engine.steps.engine import TrainingEngine
from eva_engine.steps.flops import image_input, peak_flops, training_flops
from eva_engine.steps.micro_batches import MicroBatches, forward_and_backward
from eva_runs.data_order import Batch, to_device

SEED, TOLERANCE = 0, 1e-4
PUBLISHED = {"A100": 69.9, "H100": 116.9}  # pairs/s of a GPU: NeMo, ViT-g/14


class Started(NamedTuple):
    """A step of a batch, and its peaks in GiB: of all, and of the passes beside the weights."""

    run: Callable[[], None]
    peaks: tuple[float, float]


class Measured(NamedTuple):
    """Times of the rounds, and the peaks."""

    times: list[Seconds]
    peaks: tuple[float, float]


Results = dict[str, Measured | None]


def our_step(model: EvaClip, case: Case, args: argparse.Namespace, device: torch.device) -> Step:
    """The step of `eva_engine.loop` with that of contrastive training, through DeepSpeed."""
    config = recipe(args, case)
    engine = TrainingEngine(
        model, groups=parameter_groups(config, model), optimizer=OPTIMIZER, run=config.run
    )
    engine.engine.train()
    step_fn = ContrastiveStep(build_loss(config.loss))

    def passes(batch: Pairs) -> float:
        engine.set_learning_rate(OPTIMIZER.lr)
        data = as_loaded(micro_batches(batch, case.micro_batches), device)
        return forward_and_backward(engine, step_fn, data)["loss"].item() / len(data)

    def update() -> None:
        if not engine.gradients_are_finite():
            raise FloatingPointError("a gradient is not finite")
        engine.step()

    return Step(passes, update)


def as_loaded(parts: Sequence[Pairs], device: torch.device) -> MicroBatches:
    """Micro-batches as the loop has them from the loader."""
    loaded = iter([Batch(data=part, items=[], unreadable={}) for part in parts])
    return MicroBatches(loaded, count=len(parts), device=device, seeds=(SEED, 0))


def recipe(args: argparse.Namespace, case: Case) -> ContrastiveConfig:
    """What the groups and the run are made from."""
    run = RunConfig(
        output=Path("unused"),
        batch_size=args.batch // case.micro_batches,
        accumulate=case.micro_batches,
        precision=args.precision,
        zero_stage=0 if args.precision == "fp32" else 1,
    )
    tower = TowerConfig(lr=OPTIMIZER.lr)
    return ContrastiveConfig(
        model=ModelConfig(variant="eva_g_patch14", image_size=args.image_size),
        data=DataConfig(train="unused"),
        vision=tower, text=tower, optimizer=OPTIMIZER, run=run,
    )  # fmt: skip


STEPS: dict[str, tuple[Callable[..., Any], Callable[..., Step]]] = {
    "ours": (build_ours, our_step),
    "open_clip": (build_peer, peer_step),
}


def check(args: argparse.Namespace, device: torch.device) -> Iterator[tuple[str, float]]:
    """Compare losses and gradients in float32, of the complete batch and of two micro-batches."""
    distributed.seed_all(SEED)
    ours, peer = (build(args).to(device) for build, _ in STEPS.values())
    peer.load_state_dict(peer_weights(ours.state_dict()))
    batch = to_device(make_batch(args, min(args.batch, 8)), device)
    wanted = _gradients(ours, lambda: _our_gradients(ours, [batch]))
    for title, model, run in (
        ("ours in 2 micro-batches", ours, lambda: _our_gradients(ours, micro_batches(batch, 2))),
        ("open_clip", peer, lambda: peer_gradients(peer, [batch], dtype=torch.float32)),
        ("open_clip in 2", peer,
         lambda: peer_gradients(peer, micro_batches(batch, 2), dtype=torch.float32)),
    ):  # fmt: skip
        loss, gradients = _gradients(model, run)
        scales = [found.pop("logit_scale") for found in (dict(wanted[1]), gradients)]
        apart = sum((gradients[name] - wanted[1][name]).square().sum().item() for name in gradients)
        total = sum(gradient.square().sum().item() for gradient in wanted[1].values())
        for name, value in (("loss", abs(loss - wanted[0])), ("gradients", (apart / total) ** 0.5)):
            yield f"{title}: difference of the {name} from our plain step", value
            if not value < TOLERANCE:
                raise ValueError(f"{title}, {name}: {value:.3g}: the steps do not do the same")
        yield f"{title}: gradient of the logit scale in ours", (scales[1] / scales[0]).item()


def _our_gradients(model: EvaClip, parts: Sequence[Pairs]) -> float:
    step_fn = ContrastiveStep(build_loss("contrastive"))
    data = as_loaded(parts, parts[0][0].device)
    step_fn.begin(model, data)
    total = 0.0
    for part in data:
        loss, _ = step_fn(model, part)
        (loss / len(parts)).backward()
        total += loss.item() / len(parts)
    return total


def _gradients(model: nn.Module, run: Callable[[], float]) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients, under open_clip's names."""
    model.zero_grad(set_to_none=True)
    loss = run()
    found = {
        name: parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    return loss, peer_weights(found) if "text.logit_scale" in found else found


def start(who: str, case: Case, args: argparse.Namespace, device: torch.device) -> Started:
    """Make a step, and measure its memory."""
    distributed.seed_all(SEED)
    batch = make_batch(args, args.batch)

    def carry_out() -> Step:
        build, make = STEPS[who]
        step = make(build(args, case).to(device), case, args, device)
        for _ in range(2):  # the first makes the optimizer's state
            step(batch)
        return step

    step, total = with_peak(carry_out, device)
    _, passes = with_peak(lambda: step.passes(batch), device)
    step.update()
    return Started(lambda: step(batch), (total, passes))


def measure(steps: dict[str, Started], args: argparse.Namespace, device: torch.device) -> Results:
    """Time steps in turn."""
    times: dict[str, list[Seconds]] = {who: [] for who in steps}
    for _ in range(args.rounds):
        for who, step in steps.items():
            gc.collect()
            times[who].append(timed(step.run, device))
    return {who: Measured(times[who], step.peaks) for who, step in steps.items()}


def compare(args: argparse.Namespace, device: torch.device) -> Iterator[Row]:
    """Yield the rows of the table.

    On a CPU the steps of a row take turns, with our plain step among them. The memory of a GPU does
    not hold two models of this size, but nothing else disturbs it: one is timed after the other.
    """
    cases = [PLAIN, Case("checkpoints", checkpoints=True)]
    cases += [Case(f"patch dropout {rate}", patch_dropout=rate) for rate in args.patch_dropout]
    cases += [Case(f"{k} micro-batches", micro_batches=k) for k in args.micro_batches]
    kept: dict[str, Started] = {}
    plain: Results = {}
    for case in cases:
        found: Results = dict(plain)
        if device.type == "cpu":
            steps = {who: start(who, case, args, device) for who in STEPS}
            found |= measure(steps | kept, args, device)
            kept = kept or {"plain": steps["ours"]}
            del steps
        else:
            found |= {who: alone(who, case, args, device) for who in STEPS}
        plain = plain or {"plain": found["ours"]}
        found = plain | found
        flops = {who: flops_of(who, case, args) for who in STEPS}
        yield {"step": case.title} | columns(found, flops=flops, args=args, device=device)


def alone(who: str, case: Case, args: argparse.Namespace, device: torch.device) -> Measured | None:
    """Measure a step that has the memory to itself; None if that is not enough."""
    try:
        return measure({who: start(who, case, args, device)}, args, device)[who]
    except torch.OutOfMemoryError:
        return None
    finally:
        gc.collect()
        torch.cuda.empty_cache()


def columns(
    found: Results,
    *,
    flops: dict[str, float],
    args: argparse.Namespace,
    device: torch.device,
) -> Row:
    """Columns of a case; `flops` are those of a pair."""
    on_gpu = device.type == "cuda"
    both = [found[who] for who in STEPS]
    seconds = [by_clock(one.times) if one else math.nan for one in both]
    peaks = [one.peaks if one else (math.nan, math.nan) for one in both]
    cells = {
        "s: ours; open_clip": _both(seconds),
        "pairs/s": _both([args.batch / taken for taken in seconds]),
        "peak GiB": _both([total for total, _ in peaks]),
        "of the passes": _both([passes for _, passes in peaks]),
        "GFLOP a pair": _both([flops[who] / 1e9 for who in STEPS]),
    }
    if on_gpu:
        peak = peak_flops(device) / args.batch
        shares = [flops[who] / taken / peak for who, taken in zip(STEPS, seconds, strict=True)]
        cells["of peak FLOPs"] = _both(shares)
    for name, other in (("open_clip", "open_clip"), ("our plain step", "plain")):
        cells |= _beside(name, found[other], found["ours"], on_cpu=not on_gpu)
    return cells


def _beside(name: str, slow: Measured | None, fast: Measured | None, *, on_cpu: bool) -> Row:
    """Columns that compare two steps."""
    title = f"times as fast as {name}"
    if slow is None or fast is None:
        return dict.fromkeys((title, *([f"{title}, by CPU time"] * on_cpu)), "")
    cells = {title: _of_rounds(ratios(slow.times, fast.times))}
    if on_cpu:
        cells[f"{title}, by CPU time"] = _of_rounds(ratios(slow.times, fast.times, cpu=True))
    return cells


def _both(values: Sequence[float]) -> str:
    return "; ".join("out of memory" if math.isnan(value) else f"{value:.3g}" for value in values)


def _of_rounds(found: Sequence[float]) -> str:
    return f"{statistics.median(found):.3g} ({min(found):.3g} to {max(found):.3g})"


def flops_of(who: str, case: Case, args: argparse.Namespace) -> float:
    """Model FLOPs of a pair in training."""
    inputs = [image_input(args.image_size), torch.zeros(1, LENGTH, dtype=torch.int64)]
    config = recipe(args, case).model
    return training_flops(lambda _: STEPS[who][0](args, case), config, inputs=inputs)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = parser_of_towers(__doc__, batch=8)
    add = parser.add_argument
    add("--micro-batches", type=int, nargs="*", default=[2, 4, 8], help="numbers that divide B")
    add("--patch-dropout", type=float, nargs="*", default=[0.5], help="rates")
    args = parser.parse_args(arguments)
    if odd := [k for k in args.micro_batches if args.batch % k]:
        parser.error(f"--batch {args.batch} cannot be divided into {odd[0]} micro-batches")
    return args


def main() -> None:
    """Print all figures."""
    args = parse()
    device = distributed.start(args.device)
    sized(args, device)
    show(check(args, device), rounds=args.rounds)
    show_table(compare(args, device))
    if device.type == "cuda":
        for name, rate in PUBLISHED.items():
            print(f"published pairs/s of one {name} (NeMo, ViT-g/14): {rate}")
    distributed.stop()


if __name__ == "__main__":
    main()
