"""The tables of docs/miniature.md, from the lines of benchmarks/results/miniature.jsonl.

python benchmarks/miniature/table.py  # writes the page
"""

import json
import statistics
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).parents[2]
RESULTS, PAGE = ROOT / "benchmarks/results/miniature.jsonl", ROOT / "docs/miniature.md"
ARMS = ("scratch", "pixels", "tokens", "features", "control")
SEEDS = range(5)
T_95 = 2.776  # Student's t of four degrees of freedom: the bootstrap of five is too narrow
MARKS = "<!-- results -->\n", "<!-- end of results -->\n"
Scores = Mapping[tuple[str, str], Mapping[int, float]]  # (measure, arm) -> seed -> score


def tables(lines: Iterable[str]) -> str:
    """Make the tables of finished transfers, in Markdown."""
    scores: dict[tuple[str, str], dict[int, float]] = {}
    trials: dict[tuple[str, str], dict[str, float]] = {}
    commits = set[str]()
    for line in map(json.loads, lines):
        commits.add(line["commit"])
        for name, score in line["scores"].items():
            if name == "val":
                kind, rate = line["job"].split()
                trials.setdefault((kind, line["arm"]), {})[rate] = score
            else:
                title = "fine-tuned" if name == "test" else name
                measure = name if line["job"] == "frozen" else f"{line['job']}, {title}"
                scores.setdefault((measure, line["arm"]), {})[line["seed"]] = score
    if not scores:
        return "No run is finished.\n"
    measures = [*dict.fromkeys(measure for measure, _ in scores)]
    first = _rows(["", *ARMS, "teacher, frozen"], _means(scores, measures))
    second = _rows(["features minus", *ARMS[:3], ARMS[4]], _differences(scores, measures))
    kinds = dict.fromkeys(kind for kind, _ in trials)
    third = _rows(["rates tried", *ARMS], ([kind, *_tried(trials, kind)] for kind in kinds))
    return f"{first}\n{second}\n{third}\nCommits: {', '.join(sorted(commits))}.\n"


def _means(scores: Scores, measures: list[str]) -> Iterator[list[str]]:
    for measure in measures:
        row = [measure]
        for arm in (*ARMS, "teacher"):
            values = [*scores.get((measure, arm), {}).values()]
            spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            row.append(f"{statistics.mean(values):.1f}{spread}" if values else "")
        yield row


def _differences(scores: Scores, measures: list[str]) -> Iterator[list[str]]:
    """Compare with each other arm, seed by seed; bold where Student's interval leaves 0 out."""
    for measure in measures:
        row, ours = [measure], scores.get((measure, "features"), {})
        for arm in (*ARMS[:3], ARMS[4]):
            other = scores.get((measure, arm), {})
            pairs = np.array([ours[seed] - other[seed] for seed in sorted(ours.keys() & other)])
            if len(pairs) < len(SEEDS):
                row.append("")
                continue
            low, high = interval(pairs)
            difference = f"{pairs.mean():+.1f} ({low:+.1f} to {high:+.1f})"
            half = T_95 * pairs.std(ddof=1) / len(pairs) ** 0.5
            row.append(f"**{difference}**" if abs(pairs.mean()) > half else difference)
        if any(row[1:]):
            yield row


def _tried(trials: Mapping[tuple[str, str], Mapping[str, float]], kind: str) -> Iterator[str]:
    """Give the validation score of each rate, the chosen one bold."""
    for arm in ARMS:
        results = trials.get((kind, arm), {})
        best = max(results, key=results.__getitem__, default="")
        each = (f"{rate}: {score:.1f}" for rate, score in results.items())
        yield "; ".join(f"**{rate}**" if rate.startswith(f"{best}:") else rate for rate in each)


def interval(differences: NDArray[np.float64]) -> tuple[float, float]:
    """Compute the bootstrap's 95 % interval of the mean of paired differences (N,)."""
    chance = np.random.default_rng(0)
    drawn = chance.integers(len(differences), size=(10_000, len(differences)))
    low, high = np.percentile(differences[drawn].mean(1), (2.5, 97.5))
    return float(low), float(high)


def _rows(header: list[str], rows: Iterable[list[str]]) -> str:
    lines = [header, ["---", *["--:"] * (len(header) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def page(content: str, lines: Iterable[str]) -> str:
    """Put the tables into a page, between its two marks."""
    before, _, rest = content.partition(MARKS[0])
    return f"{before}{MARKS[0]}\n{tables(lines)}\n{MARKS[1]}{rest.partition(MARKS[1])[2]}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(), RESULTS.read_text().splitlines()))
    sys.stdout.write(f"wrote {PAGE.relative_to(ROOT)}\n")
