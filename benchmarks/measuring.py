"""What the programs of this folder measure, and how they print it."""

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

T = TypeVar("T")
Call = Callable[[], object]
Seconds = tuple[float, float]  # by the clock, and of CPU time of this process
Figure = tuple[str, float]

EVA_WIDTH, EVA_MLP = 1408, 6144


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


def in_turn(calls: Sequence[Call], *, rounds: int, device: torch.device) -> list[list[Seconds]]:
    """Time calls in turn, after a first round that does not count; all rounds of each call."""
    times: list[list[Seconds]] = [[] for _ in calls]
    for _ in range(rounds + 1):
        for call, taken in zip(calls, times, strict=True):
            gc.collect()
            _synchronise(device)
            clock, processor = time.perf_counter(), time.process_time()
            call()
            _synchronise(device)
            taken.append((time.perf_counter() - clock, time.process_time() - processor))
    return [taken[1:] for taken in times]


def by_clock(rounds: Sequence[Seconds]) -> float:
    """Median of the rounds' seconds by the clock."""
    return statistics.median(clock for clock, _ in rounds)


def ratios(slow: Sequence[Seconds], fast: Sequence[Seconds], *, cpu: bool = False) -> list[float]:
    """For each round, how many times longer `slow` took: by the clock, or in CPU time."""
    return [a[cpu] / b[cpu] for a, b in zip(slow, fast, strict=True)]


def with_peak(call: Callable[[], T], device: torch.device) -> tuple[T, float]:
    """Call a function; its result, and the largest sum in GiB of what it had allocated at once."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = call()
        return result, (torch.cuda.max_memory_allocated() - before) / 2**30
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        result = call()
    total = peak = 0
    for event in record.profiler.kineto_results.events():
        if event.name() == "[memory]":
            total += event.nbytes()
            peak = max(peak, total)
    return result, peak / 2**30


def passes(
    model: nn.Module, forward: Callable[[], Tensor], *, backward: bool
) -> Callable[[], None]:
    """Make a call of the forward pass, or of both with a loss that depends on all outputs."""

    def call() -> None:
        with torch.set_grad_enabled(backward):
            out = forward()
        if backward:
            out.float().square().mean().backward()
            model.zero_grad(set_to_none=True)

    return call


def here() -> torch.device:
    """The GPU, where there is one, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def parser_of_sizes(
    description: str | None, *, depth: int = 4, batch: int = 1, rounds: int = 3
) -> argparse.ArgumentParser:
    """Make a command line with the sizes of a ViT of EVA-g's width, a batch and rounds."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--width", type=int, default=EVA_WIDTH)
    parser.add_argument("--depth", type=int, default=depth)
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--rounds", type=int, default=rounds)
    return parser


def show(figures: Iterable[Figure], *, rounds: int) -> None:
    """Print the conditions, and each figure as soon as it is known."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {rounds} rounds")
    for name, value in figures:
        print(f"{name}: {value:.3g}", flush=True)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
