"""`eva plan`: the memory of a training step, known before it is spent, and what makes it fit."""

import argparse
from collections.abc import Sequence
from functools import cache
from typing import Any

from eva_command.recipes import find_task
from eva_runs.commands import Command, Result, echo
from eva_runs.options import command_parser
from eva_runs.recipes import TASKS, recipe_name

_COLUMNS = ("weights", "gradients", "optimizer", "activations", "peak")


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    description = """Say how much memory a training step of a recipe needs, and what makes it fit.
Further arguments are those of the task's training: KEY=VALUE, --image-size, --batch, --lora."""
    parser = command_parser(description, usage="%(prog)s RECIPE [flags] [KEY=VALUE ...]")
    parser.add_argument("name", metavar="RECIPE", help="name that `eva recipes` lists, TASK/NAME")
    parser.add_argument("--task", choices=TASKS, help="where several have a recipe of that name")
    options, words = parser.parse_known_args(arguments)
    options.words = words
    return options


def _plan(options: argparse.Namespace) -> int:
    from eva_runs.memory import CARDS, MODULES, WORDS, fits, plan

    task, path = find_task(options.name, options.task)
    words = [str(path), *options.words]
    base = plan(MODULES[task], words)

    @cache
    def changed(flags: tuple[str, ...]) -> dict[str, int]:
        return plan(MODULES[task], [*words, *flags], (ValueError, SystemExit)) if flags else base

    echo(
        f"{recipe_name(task, path)} ({task}): {base['parameters'] / 1e6:,.1f} M parameters, "
        f"{base['trainable'] / 1e6:,.1f} M trained; {base['batch']} x {base['accumulate']} samples "
        f"of {base['side']} px{'; DDP' if base['processes'] > 1 else ''}; GiB:\n{'':28}"
        f"{''.join(f'{column:>13}' for column in _COLUMNS)}  fits, GB"
    )
    full, half, vit = WORDS[task]
    off, on = ((f"{vit}.activation_checkpointing={value}",) for value in (False, True))
    above = [f"lora.first_block={base['frozen']}"] if base["frozen"] else []
    lora = ("--lora", "16", *above)
    variants = {
        "as it is": (),
        "fp32": full + off,
        "fp32, checkpointing": full + on,
        "bf16, fp16": half + off,
        "bf16, fp16, checkpointing": half + on,
        "the same, LoRA": half + on + lora,
    }
    rows: dict[str, dict[str, int]] = {}
    for name, flags in variants.items():
        usage = changed(flags)
        if usage:
            cards = [str(card) for card in CARDS if fits(usage, card * 10**9)]
            numbers = "".join(f"{usage[column] / 2**30:13.2f}" for column in _COLUMNS)
            echo(f"{name:28}{numbers}  {', '.join(cards) or '-'}")
            rows[name] = usage
    # what makes it fit into the smallest card, one thing on top of the other
    tried, smallest = list[tuple[str, ...]]([()]), CARDS[0] * 10**9
    sizes = [("--image-size", str(round(base["side"] * share))) for share in (0.75, 0.5)]
    for flags in (half, on, ("--batch", "1"), lora, *sizes):
        before = tried[-1][:-2] if flags[0] in tried[-1] else tried[-1]  # another size
        if not fits(changed(tried[-1]), smallest) and changed(before + flags):
            tried.append(before + flags)
    fitting: dict[int, dict[str, Any]] = {}
    for card in CARDS:
        first = next((flags for flags in tried if fits(changed(flags), card * 10**9)), None)
        if first is None:
            echo(f"{card} GB: -")
            continue
        peak = changed(first)["peak"]
        echo(f"{card} GB: {peak / 2**30:.1f} GiB {' '.join(first) or 'as it is'}")
        fitting[card] = {"peak": peak, "settings": first}
    return Result({"recipe": recipe_name(task, path), **base, "rows": rows, "fits": fitting})


main = Command("eva plan", _parse, _plan, interrupted="nothing was planned")
