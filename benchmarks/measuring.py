"""What the programs of this folder measure, and how they print it."""

import gc
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from eva_runs.options import Precision
from eva_runs.precision import resolve

T = TypeVar("T")
Call = Callable[[], object]
Seconds = tuple[float, float]  # by the clock, and of CPU time of this process and its children
Figure = tuple[str, float]
Names = Callable[[Any], dict[str, Tensor]]  # of weights or gradients, from ours to a peer's

EVA_WIDTH, EVA_MLP = 1408, 6144
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Case:
    """Calls that do the same, ours first."""

    title: str  # in the table, with all sizes
    calls: Mapping[str, Call]
    items: int = 1  # samples of a call, named by `unit`; without a unit nothing is said of them
    unit: str = ""
    flops: float = 0.0  # of a call, for shares of the peak of matrix products; 0 for none
    precision: str = "fp32"
    once: bool = False  # timed once and without a call that warms up


@dataclass(frozen=True)
class Scale:
    """Sizes of what is timed: those of the ViT, a batch, a detector's side, files or images."""

    rounds: int
    width: int = EVA_WIDTH
    depth: int = 4
    batch: int = 4
    side: int = 1024
    items: int = 500
    towers: str = "slice"  # of `bench_training.SIZES`
    heads: int = 16

    @property
    def mlp(self) -> int:
        """Hidden width of EVA's MLP."""
        return EVA_MLP * self.width // EVA_WIDTH

    @property
    def vit(self) -> dict[str, Any]:
        """Arguments that our ViT and a peer's have in common."""
        return {"embed_dim": self.width, "depth": self.depth, "num_heads": self.heads}

    @property
    def name(self) -> str:
        """The ViT, for titles."""
        return f"w{self.width} d{self.depth}"


def in_turn(
    calls: Sequence[Call], *, rounds: int, device: torch.device, warm: bool = True
) -> list[list[Seconds]]:
    """Time calls in turn, after a first round that does not count; all rounds of each call."""
    times: list[list[Seconds]] = [[] for _ in calls]
    for _ in range(rounds + warm):
        for call, taken in zip(calls, times, strict=True):
            gc.collect()
            began = _now(device)
            call()
            clock, processor = _now(device)
            taken.append((clock - began[0], processor - began[1]))
    return [taken[warm:] for taken in times]


def ratios(slow: Sequence[Seconds], fast: Sequence[Seconds], *, cpu: bool = False) -> list[float]:
    """For each round, how many times longer `slow` took: by the clock, or in CPU time."""
    return [a[cpu] / b[cpu] for a, b in zip(slow, fast, strict=True)]


def with_peak(call: Callable[[], T], device: torch.device, *, since: str = "") -> tuple[T, float]:
    """Call a function; its result, and the largest sum in GiB of what it had allocated at once.

    On a CPU the peak is looked for from the first event on whose name begins with `since`.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = call()
        return result, (torch.cuda.max_memory_allocated() - before) / 2**30
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        result = call()
    events = sorted(record.profiler.kineto_results.events(), key=lambda event: event.start_ns())
    first = next((event.start_ns() for event in events if event.name().startswith(since)), 0)
    total = peak = 0
    for event in (event for event in events if event.name() == "[memory]"):
        total += event.nbytes()
        if event.start_ns() >= first:
            peak = max(peak, total)
    return result, peak / 2**30


def require_same(title: str, actual: Tensor, expected: Tensor) -> None:
    """Refuse to time unequal work: a ValueError if ours and the peer's result differ."""
    error = float((actual.double() - expected.double()).norm() / expected.double().norm())
    if not error < TOLERANCE:
        raise ValueError(f"{title}: relative difference {error:.3g}: the two do not do the same")


def with_our_weights(ours: nn.Module, peer: nn.Module, names: Names = dict) -> tuple[Any, Any]:
    """Give a peer our weights; tables that begin at 0 are drawn before."""
    for parameter in ours.parameters():
        if parameter.ndim == 2 and not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    peer.load_state_dict(names(ours.state_dict()))
    return ours, peer


def precisions(device: torch.device) -> list[Precision]:
    """fp32, and half precision where the hardware has it."""
    return ["fp32", *({resolve("auto", device)} - {"fp32"})]


def eva(*words: str) -> None:
    """Run a command of `eva`."""
    subprocess.run([sys.executable, "-m", "eva_command", *words], check=True)


def here() -> torch.device:
    """The GPU, where there is one, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def show(figures: Iterable[Figure], *, rounds: int) -> None:
    """Print the conditions, and each figure as soon as it is known."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {rounds} rounds")
    for name, value in figures:
        print(f"{name}: {value:.3g}", flush=True)


def _now(device: torch.device) -> Seconds:
    if device.type == "cuda":
        torch.cuda.synchronize()
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter(), time.process_time() + children.ru_utime + children.ru_stime
