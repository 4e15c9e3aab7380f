"""The words of a command line of mmengine in any order: `--cfg-options` need not be named."""

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from eva_runs.command_line import any_order
from eva_runs.command_line.parsing import TOO_MANY

SETTINGS = "--cfg-options"
USUAL_SETTINGS = (
    "train_cfg.max_iters=NUMBER",
    "optim_wrapper.optimizer.lr=NUMBER",
    "optim_wrapper.optimizer.weight_decay=NUMBER",
    "train_dataloader.batch_size=NUMBER",
    "train_dataloader.num_workers=NUMBER",
    "randomness.seed=NUMBER",
)


class AnyOrderParser(any_order.AnyOrderParser):
    """A parser whose words may stand in any order.

    Where it has `--cfg-options`, `key=value` is a setting wherever it stands, with or without the
    flag before it, unless a file has that name.
    """

    settings_flag = SETTINGS

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Sort the words, then parse them as argparse does.

        Args:
            args: Words; None for those of the process.
            namespace: What the values are added to.

        Returns:
            The values, and words that have no place.
        """
        flags, settings, others = self.sorted_words(args)
        if settings:
            flags += [SETTINGS, *settings]
        found, rest = super().parse_known_args([*flags, "--", *others], namespace)
        return found, [word for word in rest if word != "--"]

    def error(self, message: str) -> NoReturn:
        """End the program; a word that has no place may be a setting without a value.

        Args:
            message: What argparse found.
        """
        if message.startswith(TOO_MANY) and self.takes_settings:
            words = message.removeprefix(TOO_MANY)
            message = f"{words}: one word too many; settings are written KEY=VALUE"
        super().error(message)
