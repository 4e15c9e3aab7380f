"""The words of a command line of mmengine in any order: `--cfg-options` need not be named."""

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from eva_data.command_line import any_order

SETTINGS = "--cfg-options"


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
        start = "unrecognized arguments: "
        if message.startswith(start):
            message = f"{message.removeprefix(start)}: one word too many"
            if self.takes_settings:
                message += "; settings are written KEY=VALUE"
        super().error(message)
