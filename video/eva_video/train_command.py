"""Command line of `video/train.py`; what trains is imported when it is needed."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from eva_backbone.checkpoints.registry import resolve_source
from eva_data.files import home_expanded
from eva_data.tar import is_shard_pattern
from eva_engine.commands import training as command_line
from eva_runs.required_data import require_data
from eva_video.config import DataConfig, VideoConfig

if TYPE_CHECKING:
    import torch


def main(arguments: Sequence[str] | None = None) -> None:
    """Fine-tune a classifier of videos.

    Args:
        arguments: Arguments in place of those of the process.
    """
    command_line.main(
        VideoConfig, _train, program="video/train.py", arguments=arguments, check=_check
    )


def _check(config: VideoConfig) -> None:
    """Answer mistyped paths before torch is imported."""
    for name in ("train", "val"):
        if location := getattr(config.data, name):
            require_data(location, name=f"data.{name}", forms="class folders, lists or shards")
    _check_roots(config.data)
    if config.model.init_checkpoint:
        resolve_source(config.model.init_checkpoint)


def _check_roots(data: DataConfig) -> None:
    """Refuse a folder of a list's videos where there is no list."""
    listed = {name: _is_list(getattr(data, name)) for name in ("train", "val")}
    if data.val_root and not listed["val"]:
        raise ValueError(
            f"data.val_root={data.val_root} has no effect on {data.val}, which is not a list: "
            "leave it out"
        )
    if data.root and not (listed["train"] or (listed["val"] and not data.val_root)):
        raise ValueError(
            f"data.root={data.root} has no effect on {data.train}, which is not a list: leave it "
            "out"
        )


def _is_list(location: str) -> bool:
    path = home_expanded(location)
    return path.is_file() and not is_shard_pattern(path)


def _train(config: VideoConfig, device: "torch.device") -> None:
    from eva_video.training import train

    train(config, device)


if __name__ == "__main__":
    main()
