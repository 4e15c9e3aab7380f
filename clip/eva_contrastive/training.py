"""Contrastive training: the parts put together (paper section 2.3.5).

A pair that cannot be read is an OSError, which the engine answers with the next one. The caption
and the crop are drawn from torch's global generator, which the loop seeds by seed, epoch and index:
a sample does not depend on the process, the worker or the step in which it is loaded.

Shapes: H x W pixels, L tokens.
"""

import logging
import math
import shlex
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from open_clip import image_transform
from torch import Tensor
from torch.utils.data import Dataset

from eva_backbone.checkpoints.loading import LoadReport
from eva_backbone.layers import no_init_weights
from eva_contrastive.config import TEXT_VARIANTS, ContrastiveConfig, DataConfig, ModelConfig
from eva_contrastive.evaluation.validation import ContrastiveValidation
from eva_contrastive.model.eva_clip import EvaClip, build_eva_clip, tokenize
from eva_contrastive.model.loading import initialise
from eva_contrastive.model.open_clip_files import open_clip_weights
from eva_contrastive.reports import first_samples, search_step
from eva_contrastive.step import ContrastiveStep, build_loss, freeze, parameter_groups
from eva_data.captions.lists import UnreadableCaptionError
from eva_data.captions.sources import CaptionedImages, open_captions
from eva_data.files import display_path
from eva_data.holdout import validation_fact
from eva_data.labelled_images import open_labelled
from eva_data.transforms import ImageTransform, evaluation_transform
from eva_engine import planning
from eva_engine.data.loading import open_shared
from eva_engine.flops import image_input, training_flops
from eva_engine.loop import TrainingRun
from eva_engine.report import Presentation
from eva_report.content import NextStep
from eva_report.terminal import counted
from eva_runs import memory
from eva_runs.adapters import Adapters
from eva_runs.commands import command_to_run
from eva_runs.data_order import seed_everything

logger = logging.getLogger(__name__)

MEANINGS = {
    "loss": "Mean contrastive loss of the validation pairs, in batches of batch_size x accumulate.",
    "image_to_text_r1": "Percent of images whose nearest caption is one of their own.",
    "text_to_image_r1": "Percent of captions whose nearest image is their own.",
    "top1": "Zero-shot: percent of images whose class is ranked first.",
    "top5": "Zero-shot: percent of images whose class is among the first five.",
}


class Pairs(Dataset[tuple[Tensor, Tensor]]):
    """A map-style dataset of images, each with one of its captions, cut to L tokens."""

    def __init__(
        self, captions: CaptionedImages, transform: ImageTransform, context_length: int
    ) -> None:
        self.captions, self.transform = captions, transform
        self.context_length = context_length
        self.sample_id, self.checksum = captions.sample_id, captions.checksum  # for the engine

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Read an image (3, H, W), and the tokens of a caption (L,) int64.

        Raises:
            OSError: If the image or its captions cannot be read, or a caption has no word.
        """
        texts = self.captions.captions(index)
        number = int(torch.randint(len(texts), ())) if len(texts) > 1 else 0
        tokens = tokenize(texts[number], self.context_length)[0]
        if int(tokens.argmax()) < 2:  # the end token, the largest, follows that of the start
            raise UnreadableCaptionError(
                f"{self.sample_id(index)}: the caption {texts[number]!r} has no word"
            )
        return self.transform(self.captions.image(index)), tokens


def training_transform(size: int, data: DataConfig) -> ImageTransform:
    """Make open_clip's random crop (paper Table 10a) of RGB images to (3, size, size) float32."""
    transform: ImageTransform = image_transform(
        size, is_train=True, mean=data.mean, std=data.std, aug_cfg={"scale": data.crop_scale}
    )
    return transform


def open_pairs(data: DataConfig, indexes: Path) -> tuple[CaptionedImages, CaptionedImages | None]:
    """Open the pairs of a recipe for training, and those for validation, if there are any.

    Raises:
        ValueError: If they are not what the recipe says, or a held-out share leaves one side
            without images.
    """
    columns: Any = {
        name: getattr(data, name) for name in ("root", "image_column", "caption_column")
    }
    columns["indexes"] = indexes
    pairs = open_captions(data.train, **columns)
    if data.val_share:
        return pairs.hold_out(data.val_share, name="data.val_share")
    return pairs, open_captions(data.val, **columns) if data.val else None


def build_model(config: ContrastiveConfig) -> tuple[EvaClip, LoadReport | None]:
    """Build the model of a recipe, with its first weights, on the CPU; see `initialise`."""
    sizes = config.model
    with no_init_weights(bool(sizes.init_checkpoint)):
        model = build_eva_clip(
            sizes.variant,
            sizes.text,
            embed_dim=sizes.embed_dim,
            sigmoid=config.loss == "sigmoid",
            img_size=sizes.image_size,
            drop_path_rate=sizes.drop_path_rate,
            patch_dropout=sizes.patch_dropout,
            activation_checkpointing=sizes.activation_checkpointing,
        )
    model.text.set_grad_checkpointing(sizes.activation_checkpointing)
    return model, initialise(model, sizes.init_checkpoint, sizes.text_checkpoint)


def _check_first_weights(config: ContrastiveConfig, report: LoadReport | None) -> bool:
    """Refuse parts that begin at random where they must not; mention such a locked projection.

    Returns:
        Whether the start is a complete CLIP.
    """
    needed = {"text.text_projection", "visual.head.weight"}
    random = needed if report is None else needed & report.missing.keys()
    text_at_random = "text.text_projection" in random and not config.model.text_checkpoint
    if (config.text.locked or config.text.frozen_blocks) and text_at_random:
        raise ValueError(
            f"text.locked={config.text.locked} with text.frozen_blocks={config.text.frozen_blocks} "
            "would keep parts of a text tower that begin at random: name its weights as "
            "model.text_checkpoint, or a complete CLIP as model.init_checkpoint"
        )
    if config.vision.locked and "visual.head.weight" in random:
        logger.warning(
            "vision.locked keeps a projection of the images that begins at random, since no file "
            "gives it: vision.frozen_blocks=%d would train it and the final norm, and nothing else",
            config.model.depth,
        )
    return not random


def build_validation(
    config: ContrastiveConfig, pairs: CaptionedImages | None
) -> ContrastiveValidation | None:
    """Make the evaluation of a run on pairs, its class folders, or both; None for neither."""
    data, size = config.data, config.model.image_size
    if pairs is None and not data.zero_shot:
        return None
    transform = evaluation_transform(size, mean=data.mean, std=data.std)
    classes = open_labelled(data.zero_shot, transform, upright=False) if data.zero_shot else None
    return ContrastiveValidation(
        config.run, transform, pairs=pairs, classes=classes, templates=data.templates
    )


def count_flops(config: ContrastiveConfig) -> float:
    """Count the model FLOPs of a pair in training, forward and backward."""

    def build(model: ModelConfig) -> EvaClip:
        built, _ = build_model(replace(config, model=model))
        freeze(config, built)
        return built

    tokens = torch.zeros(1, TEXT_VARIANTS[config.model.text].context_length, dtype=torch.int64)
    inputs = [image_input(config.model.image_size), tokens.to("meta")]
    untrained = replace(config.model, text_checkpoint="")
    return training_flops(build, untrained, inputs=inputs)


read_recipe = planning.reader(ContrastiveConfig, "clip")


def step(config: ContrastiveConfig) -> memory.MeasuredStep:
    """Build a step for `eva plan`."""
    settings = replace(config.model, init_checkpoint="", text_checkpoint="")
    model, _ = build_model(replace(config, model=settings))
    freeze(config, model)
    batch, side = config.run.batch_size, settings.image_size
    tokens = torch.zeros(batch, model.context_length, dtype=torch.int64)
    pairs = model.visual.patch_embed.proj.weight.new_empty(batch, 3, side, side), tokens
    compute = ContrastiveStep(build_loss(config.loss))
    return planning.build_step(config, model, compute, pairs, side)


def train(config: ContrastiveConfig, device: torch.device, *, recipe: str = "") -> None:
    """Train on a device, from `eva_engine.distributed.start`.

    Raises:
        ValueError: If settings or data do not fit together.
    """
    captions, held_out = open_shared(partial(open_pairs, config.data), config.run.output)
    validation = build_validation(config, held_out)
    seed_everything(config.run.seed, purpose="")
    model, report = build_model(config)
    is_complete = _check_first_weights(config, report)
    freeze(config, model)
    base, lora = config.model.init_checkpoint, config.lora
    base = str(open_clip_weights(Path(base)) or base)
    adapters = Adapters(model, lora, base) if lora.rank else None
    transform = training_transform(config.model.image_size, config.data)
    TrainingRun(
        model=model,
        groups=parameter_groups(config, model),
        samples=Pairs(captions, transform, model.context_length),
        step_fn=ContrastiveStep(build_loss(config.loss)),
        config=config,
        adapters=adapters,
        device=device,
        evaluate=validation,
        results=validation.results if validation else (),
        flops_per_sample=None if adapters else count_flops(config),
        limits={"text.logit_scale": (0.0, math.log(config.max_logit_scale))},
        presentation=_presentation(
            config, recipe, len(captions), validation, start=base if is_complete else ""
        ),
    ).start()


def _presentation(
    config: ContrastiveConfig,
    recipe: str,
    images: int,
    validation: ContrastiveValidation | None,
    *,
    start: str,
) -> Presentation:
    """Describe a training from so many captioned images on the terminal and in its report.

    `start` is a complete CLIP that it began with, or "".
    """
    model, data = config.model, config.data
    described = [("train", f"{images:,} images with captions ({display_path(data.train)})")]
    if validation is not None and validation.pairs is not None:
        pairs = f"{len(validation.pairs):,} images with captions"
        described.append(
            validation_fact(pairs, share=data.val_share, val=data.val, of="those in train")
        )
    if validation is not None and (classes := validation.classes) is not None:
        counts = f"{counted(len(classes), 'image')}, {counted(len(classes.classes), 'class')}"
        described.append(("zero-shot", f"{counts} ({display_path(data.zero_shot)})"))
    metric, results = config.run.best_metric, validation.results if validation else ()
    names = sorted(results, key=lambda name: (name != metric, name == "loss"))
    return Presentation(
        task="CLIP",
        recipe=recipe,
        model=f"{model.variant} at {model.image_size} px, text tower {model.text}",
        weights=model.init_checkpoint,
        data=described,
        meanings={name: MEANINGS[name] for name in names},
        first_batch=partial(first_samples, mean=data.mean, std=data.std),
        sections=validation.sections if validation else tuple,
        next_steps=partial(_next_steps, data, start),
    )


def _next_steps(data: DataConfig, start: str, folder: Path) -> list[NextStep]:
    steps, evaluated = [search_step(folder, folder)], list[str]()
    if start:
        words: list[str | Path] = ["eva", "clip", "interpolate", start, folder]
        words += ["--share", "0.25", "0.5", "0.75", "--output", folder / "between"]
        command = shlex.join(map(display_path, words))
        steps.append(NextStep(text="Mix in what the start could.", command=command))
    if data.zero_shot:
        evaluated = ["--data", data.zero_shot, "--templates", *data.templates]
    elif data.val:  # held-out images are among those of the training's data
        column_options = {"image-column": data.image_column, "caption-column": data.caption_column}
        columns = [
            word for name, value in column_options.items() if value for word in (f"--{name}", value)
        ]
        evaluated = ["--pairs", data.val, *filter(None, [data.root]), *columns]
    if not evaluated:
        return steps
    evaluate = command_to_run(
        "clip evaluate",
        "clip/evaluate_zero_shot.py",
        "--weights",
        folder,
        *evaluated,
        "--output",
        folder / "evaluation",
    )
    scored = NextStep(text="Score the best weights by class names or retrieval.", command=evaluate)
    return [scored, *steps]
