"""`eva plan`: the memory of a training step, known before it is spent, and what makes it fit."""

import argparse
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from eva_command.recipes import find_task
from eva_runs.commands import Command, Result, echo
from eva_runs.options import command_parser
from eva_runs.recipes import TASKS, recipe_name

if TYPE_CHECKING:
    from eva_runs.memory import Settings

_COLUMNS = ("weights", "gradients", "optimizer", "activations", "peak")

Words = tuple[str, ...]
Usage = dict[str, int]  # of `eva_runs.memory.measure`; empty where the settings are refused


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    description = """Say how much memory a training step of a recipe needs, and what makes it fit.
Further arguments are those of the task's training: KEY=VALUE, --image-size, --batch, --lora."""
    parser = command_parser(description, usage="%(prog)s RECIPE [flags] [KEY=VALUE ...]")
    parser.add_argument("name", metavar="RECIPE", help="name that `eva recipes` lists, TASK/NAME")
    parser.add_argument("--task", choices=TASKS, help="where several have a recipe of that name")
    options, words = parser.parse_known_args(arguments)
    place = arguments.index(options.name)
    if place and arguments[place - 1] in words:  # a flag of the training, and its value
        parser.error(f"RECIPE comes before {arguments[place - 1]}")
    options.words = words
    return options


def _run(options: argparse.Namespace) -> int:
    from eva_runs.memory import MODULES, SETTINGS, plan

    task, path = find_task(options.name, options.task)
    words = [str(path), *options.words]
    base = plan(MODULES[task], words)

    @cache
    def plan_with(changes: Words) -> Usage:
        refused = (ValueError, SystemExit)
        return plan(MODULES[task], [*words, *changes], refused) if changes else base

    echo(
        f"{recipe_name(task, path)} ({task}): {base['parameters'] / 1e6:,.1f} M parameters, "
        f"{base['trainable'] / 1e6:,.1f} M trained; {base['batch']} x {base['accumulate']} samples "
        f"of {base['side']} px{'; DDP' if base['processes'] > 1 else ''}; GiB:"
    )
    above = [f"lora.first_block={base['frozen']}"] if base["frozen"] else []
    lora = ("--lora", "16", *above)
    settings = SETTINGS[task]
    rows = _compare(settings, lora, plan_with)
    fitting = _find_fitting(settings, lora, base["side"], plan_with)
    return Result({"recipe": recipe_name(task, path), **base, "rows": rows, "fits": fitting})


def _compare(
    settings: "Settings", lora: Words, plan_with: Callable[[Words], Usage]
) -> dict[str, Usage]:
    """Print a table of what precision, checkpointing and adapters make of a step."""
    from eva_runs.memory import CARDS

    off, on = settings.checkpointing(False), settings.checkpointing(True)
    variants = {
        "as it is": (),
        "fp32": settings.fp32 + off,
        "fp32, checkpointing": settings.fp32 + on,
        "bf16, fp16": settings.bf16 + off,
        "bf16, fp16, checkpointing": settings.bf16 + on,
        "the same, LoRA": settings.bf16 + on + lora,
    }
    echo(f"{'':28}{''.join(f'{column:>13}' for column in _COLUMNS)}  fits, GB")
    rows = {}
    for name, changes in variants.items():
        usage = plan_with(changes)
        if not usage:
            continue
        rows[name] = usage
        numbers = "".join(f"{usage[column] / 2**30:13.2f}" for column in _COLUMNS)
        cards = [str(card) for card in CARDS if _fits(usage, card)]
        echo(f"{name:28}{numbers}  {', '.join(cards) or '-'}")
    return rows


def _find_fitting(
    settings: "Settings", lora: Words, side: int, plan_with: Callable[[Words], Usage]
) -> dict[int, dict[str, Any]]:
    """Print for each card the first changes that make a step fit, one on top of the other."""
    from eva_runs.memory import CARDS

    sizes = [("--image-size", str(round(side * share))) for share in (0.75, 0.5)]
    steps = (settings.bf16, settings.checkpointing(True), ("--batch", "1"), lora, *sizes)
    tried: list[Words] = [()]
    for changes in steps:
        before = tried[-1][:-2] if changes[0] in tried[-1] else tried[-1]  # another size
        if not _fits(plan_with(tried[-1]), CARDS[0]) and plan_with(before + changes):
            tried.append(before + changes)
    fitting = {}
    for card in CARDS:
        first = next((changes for changes in tried if _fits(plan_with(changes), card)), None)
        if first is None:
            echo(f"{card} GB: -")
            continue
        peak = plan_with(first)["peak"]
        echo(f"{card} GB: {peak / 2**30:.1f} GiB {' '.join(first) or 'as it is'}")
        fitting[card] = {"peak": peak, "settings": first}
    return fitting


def _fits(usage: Usage, card: int) -> bool:
    from eva_runs.memory import fits

    return fits(usage, card * 10**9)


main = Command("eva plan", _parse, _run, interrupted="nothing was planned")
