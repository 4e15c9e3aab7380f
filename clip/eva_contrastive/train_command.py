"""Command line of `clip/train.py`; what trains is imported when it is needed."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from eva_backbone.checkpoints.registry import resolve_source
from eva_contrastive.config import ContrastiveConfig, DataConfig
from eva_contrastive.evaluation.prompts import find_templates
from eva_contrastive.own_pairs import without_other_classes
from eva_data.captions.early_check import look_at_list
from eva_data.captions.held_out import hold_out
from eva_data.captions.opening import without_effect
from eva_engine.commands import training as command_line
from eva_runs.required_data import require_data

if TYPE_CHECKING:
    import torch

_PAIRS = "shards, a table (CSV, TSV), a JSON list, a folder, a manifest or an index"
_CLASSES = "a folder of class folders"


def main(arguments: Sequence[str] | None = None) -> None:
    """Train a CLIP.

    Args:
        arguments: Arguments in place of those of the process.
    """
    command_line.main(
        ContrastiveConfig, _train, program="clip/train.py", arguments=arguments, check=_check,
        adapt=without_other_classes,
    )  # fmt: skip


def _check(config: ContrastiveConfig) -> None:
    """Answer mistyped paths and wrong columns before torch is imported."""
    for name, forms in (("train", _PAIRS), ("val", _PAIRS), ("zero_shot", _CLASSES)):
        if location := getattr(config.data, name):
            require_data(location, name=f"data.{name}", forms=forms)
    _check_options(config.data)
    _check_lists(config.data)
    if config.data.zero_shot and config.data.templates != ("imagenet",):  # those are open_clip's
        find_templates(config.data.templates)
    for source in (config.model.init_checkpoint, config.model.text_checkpoint):
        if source:
            resolve_source(source)


def _check_options(data: DataConfig) -> None:
    """Refuse where pictures lie and what columns are called, where nothing has them."""
    places = [place for place in (data.train, data.val) if place]
    for name in ("root", "image_column", "caption_column"):
        value = getattr(data, name)
        if value and all(name in without_effect(place) for place in places):
            raise ValueError(
                f"data.{name}={value} has no effect on {' and '.join(places)}: leave it out"
            )


def _check_lists(data: DataConfig) -> None:
    """Refuse columns and pictures that are not there, and a share that leaves one side empty."""
    for place in (data.train, data.val):
        pairs = place and look_at_list(
            place,
            root=data.root,
            image_column=data.image_column,
            caption_column=data.caption_column,
        )
        if pairs and data.val_share:
            hold_out(pairs, data.val_share, name="data.val_share")


def _train(config: ContrastiveConfig, device: "torch.device") -> None:
    from eva_contrastive.training import train

    train(config, device)


if __name__ == "__main__":
    main()
