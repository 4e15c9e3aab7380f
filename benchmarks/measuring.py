"""What the programs of this folder measure, and how they print it."""

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch
from torch.profiler import ProfilerActivity, profile

T = TypeVar("T")
Call = Callable[[], object]
Seconds = tuple[float, float]  # by the clock, and of CPU time of this process
Figure = tuple[str, float]
Row = dict[str, str]  # column -> cell


def in_turn(calls: Sequence[Call], *, rounds: int, device: torch.device) -> list[list[Seconds]]:
    """Time calls in turn, after a first round that does not count.

    Args:
        calls: What to time.
        rounds: Rounds that count.
        device: Device that they compute on.

    Returns:
        For each call its times in all rounds.
    """
    times: list[list[Seconds]] = [[] for _ in calls]
    for _ in range(rounds + 1):
        for call, taken in zip(calls, times, strict=True):
            gc.collect()
            taken.append(timed(call, device))
    return [taken[1:] for taken in times]


def timed(call: Call, device: torch.device) -> Seconds:
    """Time one call."""
    _synchronise(device)
    clock, processor = time.perf_counter(), time.process_time()
    call()
    _synchronise(device)
    return time.perf_counter() - clock, time.process_time() - processor


def by_clock(rounds: Sequence[Seconds]) -> float:
    """Median of the rounds' seconds by the clock."""
    return statistics.median(clock for clock, _ in rounds)


def ratios(slow: Sequence[Seconds], fast: Sequence[Seconds], *, cpu: bool = False) -> list[float]:
    """For each round, how many times longer `slow` took: by the clock, or in CPU time."""
    return [a[cpu] / b[cpu] for a, b in zip(slow, fast, strict=True)]


def with_peak(call: Callable[[], T], device: torch.device) -> tuple[T, float]:
    """Call a function and measure its memory.

    Args:
        call: The function.
        device: Device that it allocates on.

    Returns:
        Its result, and the largest sum in GiB of what it had allocated at once.
    """
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


def here() -> torch.device:
    """The GPU, where there is one, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def parser_of_sizes(
    description: str | None, *, batch: int = 1, rounds: int = 3
) -> argparse.ArgumentParser:
    """Make a command line with the sizes of a ViT of EVA-g's width, a batch and rounds."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--width", type=int, default=1408)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--rounds", type=int, default=rounds)
    return parser


def show(figures: Iterable[Figure], *, rounds: int) -> None:
    """Print the conditions, and each figure as soon as it is known."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {rounds} rounds")
    for name, value in figures:
        print(f"{name}: {value:.3g}", flush=True)


def show_table(rows: Iterable[Row]) -> None:
    """Print a table in Markdown, each row as soon as it is known; the first one has all columns."""
    for number, row in enumerate(rows):
        if not number:
            print(f"\n| {' | '.join(row)} |\n|{'---|' * len(row)}")
        print(f"| {' | '.join(row.values())} |", flush=True)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
