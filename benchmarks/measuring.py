"""What the programs of this folder measure, and how they print it."""

import gc
import resource
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from eva_runs.options import Precision
from eva_runs.precision import resolve

T = TypeVar("T")
Call = Callable[[], object]
Seconds = tuple[float, float]  # by the clock, and of CPU time of this process and its children
Figure = tuple[str, float]

EVA_WIDTH, EVA_MLP = 1408, 6144
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Case:
    """Calls that do the same, ours first.

    Args:
        title: Name in the table, with all sizes.
        calls: Name -> call.
        items: Samples of a call, named by `unit`; without a unit nothing is said of them.
        flops: Of a call, for shares of the peak of matrix products in `precision`; 0 for none.
        once: Timed once and without a call that warms up.
    """

    title: str
    calls: Mapping[str, Call]
    items: int = 1
    unit: str = ""
    flops: float = 0.0
    precision: str = "fp32"
    once: bool = False


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
    def name(self) -> str:
        """The ViT, for titles."""
        return f"w{self.width} d{self.depth}"


def beside(
    title: str,
    calls: Mapping[str, Call],
    *,
    rounds: int,
    device: torch.device,
    items: int = 0,
    memory: bool = True,
) -> Iterator[Figure]:
    """Time calls in turn, and compare the first one with all others.

    A ratio is the median of the rounds' ratios; on a CPU that of CPU time, which other programs
    disturb less, is given too.

    Args:
        title: Start of the figures' names.
        calls: Name -> call.
        rounds: Rounds that count, after one that does not.
        device: Device that they compute on.
        items: Samples of a call, for samples per second; 0 for none.
        memory: Measure the peak of memory beyond what is there before a call.

    Yields:
        Seconds, samples per second and peak of each, and ratios.
    """
    times = dict(zip(calls, in_turn([*calls.values()], rounds=rounds, device=device), strict=True))
    peaks = {name: with_peak(call, device)[1] for name, call in calls.items()} if memory else {}
    for name, taken in times.items():
        yield f"{title}: {name}, seconds", by_clock(taken)
        if items:
            yield f"{title}: {name}, samples/s", items / by_clock(taken)
    for name, peak in peaks.items():
        yield f"{title}: {name}, peak GiB", peak
    first, *others = calls
    for other in others:
        name = f"{title}: times as fast as {other}"
        found = ratios(times[other], times[first])
        yield name, statistics.median(found)
        yield f"{name}, slowest round", min(found)
        yield f"{name}, fastest round", max(found)
        if device.type == "cpu":
            processor = ratios(times[other], times[first], cpu=True)
            yield f"{name}, by CPU time", statistics.median(processor)
        if memory and peaks[other]:
            yield f"{title}: share of the peak of {other}", peaks[first] / peaks[other]


def in_turn(
    calls: Sequence[Call], *, rounds: int, device: torch.device, warm: bool = True
) -> list[list[Seconds]]:
    """Time calls in turn, after a first round that does not count; all rounds of each call."""
    times: list[list[Seconds]] = [[] for _ in calls]
    for _ in range(rounds + warm):
        for call, taken in zip(calls, times, strict=True):
            gc.collect()
            _synchronise(device)
            clock, processor = time.perf_counter(), _processor()
            call()
            _synchronise(device)
            taken.append((time.perf_counter() - clock, _processor() - processor))
    return [taken[warm:] for taken in times]


def by_clock(rounds: Sequence[Seconds]) -> float:
    """Median of the rounds' seconds by the clock."""
    return statistics.median(clock for clock, _ in rounds)


def ratios(slow: Sequence[Seconds], fast: Sequence[Seconds], *, cpu: bool = False) -> list[float]:
    """For each round, how many times longer `slow` took: by the clock, or in CPU time."""
    return [a[cpu] / b[cpu] for a, b in zip(slow, fast, strict=True)]


def with_peak(call: Callable[[], T], device: torch.device, *, since: str = "") -> tuple[T, float]:
    """Call a function; its result, and the largest sum in GiB of what it had allocated at once.

    On a CPU what was before the first event whose name begins with `since` is not looked at.
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
    begins = (event.start_ns() for event in events if event.name().startswith(since))
    first = next(begins, 0)  # a call of no operators has no events
    total = peak = 0
    for event in (one for one in events if one.name() == "[memory]"):
        total += event.nbytes()
        peak = max(peak, total * (event.start_ns() >= first))
    return result, peak / 2**30


def require_same(title: str, found: Tensor, wanted: Tensor) -> None:
    """Refuse to time unequal work: a ValueError if ours and the peer's result differ."""
    error = float((found.double() - wanted.double()).norm() / wanted.double().norm())
    if not error < TOLERANCE:
        raise ValueError(f"{title}: relative difference {error:.3g}: the two do not do the same")


def precisions(device: torch.device) -> list[Precision]:
    """fp32, and half precision where the hardware has it."""
    return ["fp32", *({resolve("auto", device)} - {"fp32"})]


def here() -> torch.device:
    """The GPU, where there is one, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def show(figures: Iterable[Figure], *, rounds: int) -> None:
    """Print the conditions, and each figure as soon as it is known."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {rounds} rounds")
    for name, value in figures:
        print(f"{name}: {value:.3g}", flush=True)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _processor() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime
