"""The table of a zero-shot evaluation: as Table 10b of the paper, and one of retrieval."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eva_contrastive.evaluation.published import (
    MEANS,
    RETRIEVAL,
    SETS,
    SHIFTS,
    expected,
    expected_retrieval,
    main_score,
)
from eva_contrastive.evaluation.retrieval import RANKS, RetrievalScore
from eva_data.files import write_text
from eva_engine.evaluation.classification_report import average_and_gap, table
from eva_engine.evaluation.counting import Score

MEAN, PAPER = "(1+5)/2", "EVA-CLIP-g"
Row = Sequence[str]


def summary(scores: Mapping[str, Score]) -> dict[str, float | None]:
    """Compute the average of the twelve sets and the gap of robustness; None where sets lack.

    The gap is that of ImageNet-1K's top-1 to the mean of it and its five variants, as in the
    paper. Kinetics counts with the mean of top-1 and top-5.

    Args:
        scores: Set -> score.

    Returns:
        `average` and `gap`.
    """
    values = {name: main_score(name, score) for name, score in scores.items()}
    all_of_them = average_and_gap(values, tuple(SETS))
    shifts = average_and_gap(values, SHIFTS)
    return {
        "average": None if all_of_them is None else all_of_them[0],
        "gap": None if shifts is None else shifts[1],
    }


def text_table(
    scores: Mapping[str, Score],
    retrieval: Mapping[str, RetrievalScore],
    *,
    class_means: Mapping[str, float],
) -> str:
    """Write the results for the terminal.

    Args:
        scores: Set -> score.
        retrieval: Set -> shares.
        class_means: Set -> mean over its classes of their accuracies.

    Returns:
        Lines of text.
    """
    parts = []
    if scores:
        extra = {name: _extra(name, score) for name, score in scores.items()}
        for name, mean in class_means.items():
            extra[name]["class mean"] = mean
        parts.append(table(scores, unit="samples", extra=extra))
        found = summary(scores)
        for key, title in (("average", "average of 12"), ("gap", "robustness gap")):
            if (value := found[key]) is not None:
                parts.append(f"{title:16} {'':8} {value:8.3f}")
        if found["average"] is None and len({*scores} & {*SETS}) > 1:
            lacking = [name for name in SETS if name not in scores]
            parts.append(f"no average of the paper's twelve sets without {', '.join(lacking)}")
    if retrieval:
        heads, *rows = _retrieval_rows(retrieval)
        widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
        for row in (heads, *rows):
            cells = [f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)]
            parts.append(" ".join([f"{row[0]:16}", *cells]))
    return "\n".join(parts)


def _extra(name: str, score: Score) -> dict[str, float]:
    found = {MEAN: score.mean_top1_top5} if name in MEANS else {}
    paper = expected(name, score)
    return found if paper is None else found | {PAPER: paper}


def _rows(scores: Mapping[str, Score]) -> list[Row]:
    """Make head and rows of the classification, with the average and the gap."""
    rows: list[Row] = [("set", "samples", "top-1", "top-5", MEAN, PAPER)]
    for name, score in scores.items():
        mean = f"{score.mean_top1_top5:.2f}" if name in MEANS else ""
        paper = expected(name, score)
        rows.append(
            (name, str(score.samples), f"{score.top1:.2f}", f"{score.top5:.2f}", mean,
             "" if paper is None else f"{paper:.2f}")
        )  # fmt: skip
    found = summary(scores)
    for key, title in (("average", "average of 12"), ("gap", "robustness gap")):
        if (value := found[key]) is not None:
            rows.append((title, "", f"{value:.2f}", "", "", ""))
    return rows


def _retrieval_rows(retrieval: Mapping[str, RetrievalScore]) -> list[Row]:
    recalls = [f"{way} R@{rank}" for way in ("I->T", "T->I") for rank in RANKS]
    rows: list[Row] = [("set", "images", "captions", *recalls)]
    for name, score in retrieval.items():
        found = list(score.entries().values())
        rows.append((name, *map(str, found[:2]), *(f"{value:.2f}" for value in found[2:])))
        paper = expected_retrieval(name, score)
        if paper is not None:
            values = (*paper.image_to_text, *paper.text_to_image)
            rows.append((f"  {PAPER}", "", "", *(f"{value:.2f}" for value in values)))
    return rows


def write_tables(
    folder: Path, scores: Mapping[str, Score], retrieval: Mapping[str, RetrievalScore]
) -> list[Path]:
    """Write the results as `table.md` and `table.csv`, and `retrieval.csv`.

    Args:
        folder: Folder of the files, which exists.
        scores: Set -> score.
        retrieval: Set -> shares.

    Returns:
        The files.
    """
    tables = {"table": _rows(scores) if scores else [],
              "retrieval": _retrieval_rows(retrieval) if retrieval else []}  # fmt: skip
    files, texts = [], []
    for name, rows in tables.items():
        if rows:
            lines = io.StringIO(newline="")
            csv.writer(lines).writerows(rows)
            files.append(folder / f"{name}.csv")
            write_text(files[-1], lines.getvalue())
            texts.append(_markdown(rows))
    files.append(folder / "table.md")
    write_text(files[-1], "\n".join(texts))
    return files


def _markdown(rows: Sequence[Row]) -> str:
    head, *rest = [[cell.strip().replace("|", r"\|") for cell in row] for row in rows]
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rest]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def entries_of(
    scores: Mapping[str, Score], retrieval: Mapping[str, RetrievalScore]
) -> dict[str, dict[str, Any]]:
    """Make further entries of the sets in `results.json`.

    Args:
        scores: Set -> score.
        retrieval: Set -> shares.

    Returns:
        `sets`: set -> its further entries; `retrieval`: set -> all of its entries.
    """
    sets: dict[str, Any] = {}
    for name, score in scores.items():
        more = {"mean_top1_top5": score.mean_top1_top5}
        if (paper := expected(name, score)) is not None:
            more["published"] = paper
        sets[name] = more
    pairs: dict[str, Any] = {}
    for name, shares in retrieval.items():
        pairs[name] = shares.entries()
        if name in RETRIEVAL and (found := expected_retrieval(name, shares)) is not None:
            pairs[name]["published"] = found._asdict()
    return {"sets": sets, "retrieval": pairs}
