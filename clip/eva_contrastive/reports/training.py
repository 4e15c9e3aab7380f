"""What a training of CLIP says of itself on the terminal and in its report."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from eva_contrastive.config import ContrastiveConfig, DataConfig
from eva_contrastive.evaluation.validation import ContrastiveValidation
from eva_contrastive.reports.evaluation import search_step
from eva_contrastive.reports.sections import MEANINGS
from eva_data.holdout import validation_fact
from eva_engine.report import Presentation
from eva_report.content import Section, Step
from eva_runs.commands import command_to_run


def present_training(
    config: ContrastiveConfig, pairs: int, validation: ContrastiveValidation | None
) -> Presentation:
    """Describe a training.

    Args:
        config: The recipe.
        pairs: Number of pictures that it learns from.
        validation: Evaluation of the run; None without one.

    Returns:
        The description.
    """
    model, data = config.model, config.data
    described = [("train", f"{pairs:,} pictures with captions ({data.train})")]
    if validation is not None and validation.pairs is not None:
        counted = f"{len(validation.pairs):,} pictures with captions"
        described.append(
            validation_fact(counted, share=data.val_share, val=data.val, of="those in train")
        )
    if validation is not None and validation.classes is not None:
        classes = validation.classes
        counts = f"{len(classes):,} pictures, {len(classes.classes):,} classes"
        described.append(("zero-shot", f"{counts} ({data.zero_shot})"))
    metric = config.run.best_metric
    results = validation.results if validation is not None else ()
    names = sorted(results, key=lambda name: (name != metric, name == "loss"))

    def sections() -> Sequence[Section]:
        return validation.sections() if validation is not None else ()

    return Presentation(
        task="CLIP",
        what=f"{model.variant} at {model.image_size} px, text tower {model.text}",
        weights=model.init_checkpoint,
        data=described,
        meanings={name: MEANINGS[name] for name in names},
        sections=sections,
        next_steps=partial(_next_steps, data),
    )


def _next_steps(data: DataConfig, folder: Path) -> list[Step]:
    evaluated: list[str] = []
    if data.zero_shot:
        evaluated = ["--data", data.zero_shot, "--templates", *data.templates]
    elif data.val:  # what is held out is among the pictures of the training's data
        evaluated = ["--pairs", data.val, *([data.root] if data.root else [])]
        for option, value in (("--image-column", data.image_column),
                              ("--caption-column", data.caption_column)):  # fmt: skip
            evaluated += [option, value] if value else []
    evaluate = command_to_run(
        "clip evaluate", "clip/evaluate_zero_shot.py",
        "--weights", folder, *evaluated, "--output", folder / "evaluation",
    )  # fmt: skip
    steps = [search_step(folder, folder)]
    if evaluated:
        scored = "Score the best weights by class names or retrieval."
        steps.insert(0, Step(text=scored, command=evaluate))
    return steps
