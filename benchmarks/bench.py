"""This toolkit beside its peers: one table, each case in one process with its peer.

    python benchmarks/bench.py --quick --only encoder,scoring    # make bench BENCH_ARGS='...'

Each case replaces what `results/HARDWARE.json` had of it, and `docs/benchmarks.md` draws its tables
from these files. A ratio is the median of the rounds' ratios; on a CPU that of CPU time, which
other programs disturb less, is given too. The peak is that of a large `torch.matmul` in turn.
"""

import datetime
import gc
import importlib
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from measuring import Case, Scale, here, in_turn, ratios

from eva_data.files import load_json
from eva_data.saving import write_text
from eva_runs.data_order import seed_everything
from eva_runs.options import command_parser
from eva_runs.precision import DTYPES
from eva_runs.record import commit, hardware

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "benchmarks/results", ROOT / "docs/benchmarks.md"
MARKS = "<!-- results -->\n", "<!-- end of results -->\n"
MODULES = {
    **dict.fromkeys(
        ("encoder", "plain_vits", "plain_vitdet", "vitdet", "detector", "segmentation"),
        "bench_models",
    ),
    "mask_heads": "bench_models",
    **dict.fromkeys(("mim", "clip", "zero_shot"), "bench_training"),
    **dict.fromkeys(("scoring", "lvis", "video", "loading", "commands", "setup"), "bench_data"),
}
SCALES = {
    "full": Scale(rounds=5),
    "quick": Scale(rounds=2, width=768, depth=2, batch=2, side=512, items=60),
    "trial": Scale(rounds=1, width=32, depth=2, batch=2, side=64, items=6, towers="trial", heads=2),
    "gpu": Scale(rounds=10, depth=40, batch=32, items=2000, towers="complete"),  # instead of "full"
}
HEADER = (
    *("case", "ours: s, minimum and median (spread)", "peer", "peer: s", "times as fast (rounds)"),
    *("by CPU time", "share of the peak", "torch, commit, date"),
)


def measure(case: Case, device: torch.device, rounds: int) -> dict[str, Any]:
    """Time a case: what its entry in the results has."""
    calls, side = dict(case.calls), 4096 if device.type == "cuda" else 2048
    if case.flops:
        matrix = torch.ones(side, side, device=device, dtype=DTYPES[case.precision])
        calls["matmul"] = partial(torch.matmul, matrix, matrix)
    taken = in_turn(
        [*calls.values()], rounds=1 if case.once else rounds, device=device, warm=not case.once
    )
    times = dict(zip(calls, taken, strict=True))
    peak = 2 * side**3 / min(times.pop("matmul"))[0] if case.flops else 0.0
    ways: dict[str, dict[str, Any]] = {}
    for name, samples in times.items():
        clock = [seconds for seconds, _ in samples]
        way = ways[name] = {"minimum": min(clock), "median": median(clock), "maximum": max(clock)}
        if case.flops:
            way["share"] = case.flops / min(clock) / peak
        if samples is not taken[0]:
            of_rounds = ratios(samples, taken[0])
            way["ratios"] = [median(of_rounds), min(of_rounds), max(of_rounds)]
            if device.type == "cpu":
                way["cpu"] = median(ratios(samples, taken[0], cpu=True))
    return {"items": case.items, "unit": case.unit, "ways": ways}


def rows(title: str, entry: Mapping[str, Any]) -> Iterator[list[str]]:
    """Make the rows of a case, one for each peer."""

    def seconds(way: Mapping[str, Any]) -> str:
        low, middle, high = (way[key] for key in ("minimum", "median", "maximum"))
        cell = f"{low:.3g}, {middle:.3g} ({(high - low) / middle:.0%})"
        if not entry["unit"]:
            return cell
        return f"{cell}; {entry['items'] / middle:.3g} {entry['unit']}/s"

    (_, ours), *peers = entry["ways"].items()
    made_by = f"{entry['torch']}, {entry['commit']}, {entry['date']}"
    for name, peer in peers or [("", {})]:
        row = [title, seconds(ours), name, "", "", "", ""]
        if peer:
            middle, low, high = peer["ratios"]
            row[3:5] = seconds(peer), f"{middle:.2f} ({low:.2f} to {high:.2f})"
            row[5] = f"{peer['cpu']:.2f}" if "cpu" in peer else ""
        row[6] = "; ".join(f"{way['share']:.2f}" for way in (ours, peer) if "share" in way)
        yield [*row, made_by]


def table(cases: Mapping[str, Mapping[str, Any]]) -> str:
    """Make a table in Markdown."""
    lines = [HEADER, ["---"] * len(HEADER)]
    lines += [row for title, entry in cases.items() for row in rows(title, entry)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def page(content: str, results: Path) -> str:
    """Put the tables of all files of a folder into a page, between its two marks."""
    files = [load_json(file) for file in sorted(results.glob("*.json"))]
    parts = [f"### {result['hardware']}\n\n{table(result['cases'])}\n" for result in files]
    before, _, rest = content.partition(MARKS[0])
    return f"{before}{MARKS[0]}\n{''.join(parts)}{MARKS[1]}{rest.partition(MARKS[1])[2]}"


def describe(device: torch.device) -> str:
    """Name the GPU or processor with its instructions, cores, memory and threads."""
    matrix = filter(torch.cpu.get_capabilities().get, ("avx512_bf16", "amx_bf16", "amx_fp16"))
    instructions = " ".join([torch.backends.cpu.get_cpu_capability(), *matrix])
    where = hardware("cpu" if device.type == "cpu" else "cuda:0")
    return f"{where}, {instructions}, {torch.get_num_threads()} threads"


def slug(title: str) -> str:
    """Make a file's name of a description, without the memory."""
    words = re.sub(r"\d+ GiB of memory, |\((?:R|TM)\)", "", title)
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = command_parser(__doc__)
    names = ", ".join(MODULES)
    parser.add_argument("--only", help=f"some of {names}; setup runs only if it is named")
    for name, help_text in (
        ("quick", "small sizes, 5 minutes on two cores"),
        ("trial", "tiny ones"),
    ):
        parser.add_argument(
            f"--{name}", dest="scale", action="store_const", const=name, help=help_text
        )
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    args, device = parser.parse_args(arguments), here()
    modules = args.only.split(",") if args.only else [name for name in MODULES if name != "setup"]
    unknown = set(modules) - MODULES.keys()
    if unknown:
        parser.error(f"--only: no case {', '.join(sorted(unknown))}; there are {names}")
    scale = SCALES[args.scale or ("gpu" if device.type == "cuda" else "full")]
    hardware = describe(device)
    file = args.output / f"{slug(hardware)}.json"
    written_here = (RESULTS, PAGE)
    revision = commit(ROOT, without=written_here).removeprefix("commit ")
    made = {
        "torch": torch.__version__,
        "commit": revision,
        "date": datetime.date.today().isoformat(),
    }
    sys.stdout.write(f"{hardware}\n\n{table({})}")
    for name in modules:
        seed_everything(0, purpose="")
        for case in getattr(importlib.import_module(MODULES[name]), name)(scale, device):
            entry = made | measure(case, device, scale.rounds)
            results: Any = load_json(file) if file.exists() else {"hardware": hardware, "cases": {}}
            results["cases"][case.title] = entry
            args.output.mkdir(parents=True, exist_ok=True)
            write_text(file, json.dumps(results, indent=1) + "\n")
            sys.stdout.writelines(f"| {' | '.join(row)} |\n" for row in rows(case.title, entry))
            sys.stdout.flush()
            del case
        gc.collect()
        if args.output == RESULTS:
            write_text(PAGE, page(PAGE.read_text(), RESULTS))


if __name__ == "__main__":
    main()
