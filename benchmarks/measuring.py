"""What the programs of this folder measure, and how they print it."""

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from eva_runs.options import command_parser

T = TypeVar("T")
Call = Callable[[], object]
Seconds = tuple[float, float]  # by the clock, and of CPU time of this process
Figure = tuple[str, float]
Forwards = Mapping[str, tuple[nn.Module, Callable[[], Any]]]  # name -> model, forward pass

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


def both_passes(title: str, forwards: Forwards, **options: Any) -> Iterator[Figure]:
    """Compare forward passes, and those with the backward pass of a loss of all outputs.

    Args:
        title: Start of the figures' names.
        forwards: Name -> the model, and its forward pass.
        **options: Of `beside`.
    """

    def call(model: nn.Module, forward: Callable[[], Tensor], *, backward: bool) -> None:
        with torch.set_grad_enabled(backward):
            out = forward()
        if backward:
            out.float().square().mean().backward()
            model.zero_grad(set_to_none=True)

    for way, backward in {"forward": False, "forward and backward": True}.items():
        calls = {name: partial(call, *of, backward=backward) for name, of in forwards.items()}
        yield from beside(f"{title}, {way}", calls, **options)


def here() -> torch.device:
    """The GPU, where there is one, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def new_parser(description: str | None, *, rounds: int, batch: int = 0) -> argparse.ArgumentParser:
    """Make a command line with a number of rounds, and a size of the batch if it has one."""
    parser = command_parser(description)
    parser.add_argument("--rounds", type=int, default=rounds)
    if batch:
        parser.add_argument("--batch", type=int, default=batch)
    return parser


def parser_of_sizes(
    description: str | None, *, depth: int = 4, batch: int = 1, rounds: int = 3
) -> argparse.ArgumentParser:
    """Make a command line with the sizes of a ViT of EVA-g's width, a batch and rounds."""
    parser = new_parser(description, rounds=rounds, batch=batch)
    for name, default in (("width", EVA_WIDTH), ("depth", depth), ("heads", 16)):
        parser.add_argument(f"--{name}", type=int, default=default)
    return parser


def add_precision(parser: argparse.ArgumentParser) -> None:
    """Add the number format of a program that trains or evaluates."""
    default = "fp16" if here().type == "cuda" else "fp32"
    parser.add_argument("--precision", choices=("fp32", "fp16", "bf16"), default=default)


def show(figures: Iterable[Figure], *, rounds: int) -> None:
    """Print the conditions, and each figure as soon as it is known."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {rounds} rounds")
    for name, value in figures:
        print(f"{name}: {value:.3g}", flush=True)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
