"""The command of a tool that writes features, put together from what several projects compute."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from eva_engine.commands.options import add_arguments, add_output, add_weights, command, new_parser
from eva_runs.options import number

if TYPE_CHECKING:  # the options alone need no torch
    import torch
    from torch import Tensor

    from eva_engine.extraction import Samples

STORED = ("fp16", "fp32")


class Extraction(NamedTuple):
    """Features that are to be written."""

    compute: "Callable[[Tensor], Tensor]"  # what gives features of a batch of samples
    samples: "Samples"
    shape: tuple[int, ...]  # of the features of a sample
    settings: dict[str, Any]  # what distinguishes them, besides weights and samples


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Features of one project, which a tool offers."""

    names: dict[str, tuple[str, ...]]  # of `--kind` -> what it is computed of: "images", "texts"
    add_options: Callable[[argparse.ArgumentParser], None]  # whose defaults are None
    check: Callable[[argparse.Namespace], None]  # refuses options by a ValueError
    prepare: Callable[[argparse.Namespace, "torch.device"], Extraction]


def extraction_command(program: str, kinds: Sequence[Kind], *, about: str) -> Callable[..., None]:
    """Make the `main` of a command that writes features; `about` has its purpose, then examples."""

    def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
        purpose, _, examples = about.partition("\n\n")
        return _parse(arguments, new_parser(program, purpose, epilog=examples), kinds)

    def work(options: argparse.Namespace, device: "torch.device") -> None:
        from eva_engine.extraction import write_features

        (kind,) = [kind for kind in kinds if options.kind in kind.names]
        write_features(options, lambda: kind.prepare(options, device))

    return command(program, parse, work, claims=False)


def _parse(
    arguments: Sequence[str] | None, parser: argparse.ArgumentParser, kinds: Sequence[Kind]
) -> argparse.Namespace:
    inputs = {name: takes for kind in kinds for name, takes in kind.names.items()}
    add_weights(parser, kinds="of any task")
    group = parser.add_mutually_exclusive_group(required=True)
    text = "folders, searched, and images; or one torchvision:NAME:ROOT:SPLIT or hf:NAME:SPLIT"
    group.add_argument("--images", nargs="+", help=text)
    group.add_argument("--texts", metavar="FILE", help="text file, one text in each line")
    add_output(parser, required=True, help="folder of the files")
    add = parser.add_argument
    add("--kind", choices=inputs, help="default: the first that is computed of the input")
    add("--store", choices=STORED, default="fp16", help="number format of the files")
    add("--file-mb", type=number(1e-6), default=256, help="size of a file at most (default: 256)")
    add("--skip-unreadable", action="store_true", help="leave images out that cannot be read")
    for kind in kinds:
        kind.add_options(parser)
    add_arguments(parser, batch_size=32, published=False)
    options = parser.parse_args(arguments)
    given = "images" if options.texts is None else "texts"
    fitting = [name for name, takes in inputs.items() if given in takes]
    options.kind = options.kind or next(iter(fitting), None)
    if options.kind not in fitting:
        parser.error(f"--kind {options.kind} is not computed of --{given}")
    for kind in kinds:
        if options.kind in kind.names:
            try:
                kind.check(options)
            except ValueError as error:
                parser.error(str(error))
            continue
        alone = argparse.ArgumentParser()
        kind.add_options(alone)
        for name in vars(alone.parse_args([])):
            if getattr(options, name) is not None:
                flag = name.replace("_", "-")
                parser.error(f"--{flag} has no use with --kind {options.kind}")
    return options
