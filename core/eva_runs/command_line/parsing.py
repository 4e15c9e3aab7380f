"""The parser of every command: argparse without abbreviations."""

import argparse
from collections.abc import Collection
from typing import Any

TOO_MANY = "unrecognized arguments: "


class Parser(argparse.ArgumentParser):
    """A parser whose flags are written in full.

    Args:
        *args: As for `argparse`.
        settings: Not used.
        **kwargs: As for `argparse`.
    """

    def __init__(self, *args: Any, settings: Collection[str] = (), **kwargs: Any) -> None:
        del settings
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)
