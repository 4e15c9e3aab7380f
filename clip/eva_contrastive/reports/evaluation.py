"""The page of a zero-shot evaluation: all sets in a table, and a section for each small one."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from eva_contrastive.evaluation.benchmarks import OWN, Benchmark
from eva_contrastive.evaluation.opening import Opened
from eva_contrastive.evaluation.published import expected
from eva_contrastive.evaluation.retrieval import RetrievalScore
from eva_contrastive.reports.sections import picture_of, retrieval_table
from eva_engine.evaluation.classification_report import classification_sections
from eva_engine.evaluation.counting import Counted, Outcome, Score
from eva_engine.report import evaluation_page
from eva_report.content import Report, ScoreRow, ScoreTable, Section, Step
from eva_runs.commands import command_to_run

MOST_CLASSES = 200  # of a set with a section of its own
Examples = tuple[Sequence[Outcome], Sequence[Outcome]]


def describe(opened: Opened) -> list[tuple[str, str]]:
    """Name the sets of an evaluation with their counts.

    Args:
        opened: The sets.
    """
    sets = [
        (one.name, f"{len(one.samples):,} samples, {len(one.names):,} class names")
        for one in opened.benchmarks
    ]
    return sets + [
        (name, f"{len(pairs):,} pictures with captions") for name, pairs in opened.pairs.items()
    ]


def class_sections(one: Benchmark, counted: Counted, examples: Examples) -> list[Section]:
    """Make the sections of a set of classes.

    Args:
        one: The set.
        counted: Its counts, with the confusion.
        examples: Its wrong and right samples.
    """
    found = classification_sections(
        counted, list(one.names), examples=examples, name=one.samples.sample_id, unit="samples",
        picture=lambda index: picture_of(one.samples, index),
        complete_in="per_class.csv" if one.name == OWN else "",
    )  # fmt: skip
    return [replace(section, title=f"{section.title} ({one.name})") for section in found]


def evaluation_report(
    options: argparse.Namespace,
    scores: Mapping[str, Score],
    retrieval: Mapping[str, RetrievalScore],
    *,
    data: Sequence[tuple[str, str]],
    class_means: Mapping[str, float],
    sections: Sequence[Callable[[], list[Section]]],
    device: str,
) -> Report:
    """Make the page of an evaluation.

    Args:
        options: Options of the command.
        scores: Set -> score.
        retrieval: Set -> shares.
        data: Name and description of each set.
        class_means: Set -> mean over its classes of their accuracies.
        sections: Functions that make the sections of single sets.
        device: Type of the device.

    Returns:
        The page.
    """
    tables: list[Section] = []
    if scores:
        tables.append(_accuracies(scores, dict(data), class_means))
    tables += [retrieval_table(name, score) for name, score in retrieval.items()]
    return evaluation_page(
        options.output, task="CLIP", weights=str(options.weights), data=data,
        settings=_settings(options), device=device,
        summary=f"{'; '.join(_sentences(scores, retrieval))}.",
        sections=[*tables, *(section for make in sections for section in make())],
        links=("table.md", "table.csv", "retrieval.csv", "per_class.csv", "confusion.png"),
        next_steps=[search_step(options.weights, options.output)],
    )  # fmt: skip


def search_step(weights: str | Path, folder: Path) -> Step:
    """Give the command that searches pictures by a sentence.

    Args:
        weights: Weights, or the folder of a run.
        folder: Folder of the run or evaluation, in which the search writes.
    """
    command = command_to_run(
        "clip demo", "clip/demo.py", "search", "PICTURES",
        "--weights", weights, "--output", folder / "search", "--text", "what you look for",
    )  # fmt: skip
    return Step(text="Search a folder of pictures by a sentence.", command=command)


def _settings(options: argparse.Namespace) -> dict[str, str]:
    given = {
        "sentences of data": " | ".join(options.templates or ()),
        "class names": options.classes,
        "precision": options.precision,
        "batch size": options.batch_size,
    }
    return {name: str(value) for name, value in given.items() if value}


def _sentences(scores: Mapping[str, Score], retrieval: Mapping[str, RetrievalScore]) -> list[str]:
    found = [f"{name}: top1 {score.top1:.2f} %" for name, score in scores.items()]
    return found + [
        f"{name}: {one.image_to_text_r1:.2f} % of the pictures find their caption first"
        for name, one in retrieval.items()
    ]


def _accuracies(
    scores: Mapping[str, Score], data: Mapping[str, str], class_means: Mapping[str, float]
) -> ScoreTable:
    columns = ["top1", "top5", "class mean", "EVA-CLIP-g (paper)"]
    rows = [
        (name, [score.top1, score.top5, class_means.get(name), expected(name, score)])
        for name, score in scores.items()
    ]
    used = [k for k in range(len(columns)) if any(values[k] is not None for _, values in rows)]
    return ScoreTable(
        title="Zero-shot accuracy",
        columns=[columns[k] for k in used],
        rows=[
            ScoreRow(name=name, values=[values[k] for k in used], meaning=data.get(name, ""))
            for name, values in rows
        ],
        text="Percent of the samples whose class is the first, or among the first five, by "
        "sentences about the classes alone. The mean over classes counts each class as much as "
        "any other.",
        digits=2,
    )
