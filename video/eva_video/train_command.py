"""Command line of `video/train.py`; what trains is imported when it is needed."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from eva_engine.commands import training as command_line
from eva_video.config import VideoConfig

if TYPE_CHECKING:
    import torch


def main(arguments: Sequence[str] | None = None) -> None:
    """Fine-tune a classifier of videos.

    Args:
        arguments: Arguments in place of those of the process.
    """
    command_line.main(VideoConfig, _train, program="video/train.py", arguments=arguments)


def _train(config: VideoConfig, device: "torch.device") -> None:
    from eva_video.training import train

    train(config, device)


if __name__ == "__main__":
    main()
