"""The words of a training's command line in any order: a recipe, flags, values as KEY=VALUE."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from eva_data.files import expand_home
from eva_runs.command_line.any_order import is_setting
from eva_runs.command_line.slips import SlipError, hint
from eva_runs.recipes import TASKS, find_recipe

_SWITCHES = ("--help", "-h", "--no-download", "--print-config")


def take_recipe(task: str, words: Sequence[str]) -> tuple[str | None, list[str]]:
    """Find the recipe among the words of a command line.

    Args:
        task: Task whose recipes have names.
        words: Arguments.

    Returns:
        Name or file of the recipe, and the other words; None without one. A first word that is
        neither a flag nor a setting is the recipe, whatever it is.
    """
    others = list(words)
    for place, word in enumerate(others):
        if word.startswith("-") or is_setting(word):
            continue
        value = place > 0 and others[place - 1].startswith("--") and "=" not in others[place - 1]
        if (value and others[place - 1] not in _SWITCHES) and not _is_recipe(task, word):
            continue  # the value of a flag
        if not value and place and not _is_recipe(task, word) and _later(task, others[place + 1 :]):
            continue
        return word, others[:place] + others[place + 1 :]
    return None, others


def _is_recipe(task: str, word: str) -> bool:
    try:
        file = find_recipe(task, word) if task in TASKS else Path(word)
    except (ValueError, OSError):
        return False
    return file.suffix == ".py" and file.is_file()


def _later(task: str, words: Sequence[str]) -> bool:
    return any(_is_recipe(task, word) for word in words)


def as_flags(words: Sequence[str], default: Any) -> list[str]:
    """Write settings as the flags that `tyro` takes, and refuse a flag that is not there.

    Args:
        words: Arguments without the recipe: `--run.epochs 3`, `run.epochs=3`, `run.resume=true`,
            `optimizer.betas=0.9,0.98`.
        default: The config of the recipe.

    Returns:
        The flags and their values.

    Raises:
        SlipError: For a name that the config does not have, with the closest one, or one that has
            no value.
    """
    values = dict(_values(default))
    flags: list[str] = []
    flag = ""  # that waits for its value, which may look like a setting or a flag
    for word in words:
        value_of, flag = flag, ""
        if value_of and not word.startswith("--"):
            flags += _flag(value_of, word, values[value_of.replace("-", "_")])
            continue
        if value_of:
            raise _without_value(value_of)
        if not (word.startswith("--") or is_setting(word)) or word in _SWITCHES:
            flags.append(word)
            continue
        name, equals, text = word.removeprefix("--").partition("=")
        plain = name.replace("-", "_")
        start, _, last = plain.rpartition(".")
        positive = f"{start}.{last.removeprefix('no_')}".lstrip(".")
        if plain not in values and not isinstance(values.get(positive), bool):
            dashes = "--" if word.startswith("--") else ""
            known = [f"--{one.replace('_', '-')}" if dashes else one for one in values]
            close = hint(plain, known, otherwise="; RECIPE --help lists all")
            raise SlipError(f"there is no setting {dashes}{name}{close}")
        if equals:
            flags += _flag(name, text, values.get(plain))
        elif isinstance(values.get(plain), str | int | float | Path) and plain in values:
            switch = isinstance(values[plain], bool)
            flag = "" if switch else name
            flags += [word] if switch else []
        else:
            flags.append(word)
    if flag:
        raise _without_value(flag)
    return flags


def _without_value(name: str) -> SlipError:
    return SlipError(f"--{name} has no value: write --{name} VALUE or {name}=VALUE")


def without_other_validation(flags: Sequence[str], default: Any) -> list[str]:
    """Let `--data.val-share` take the place of the validation data that a recipe names.

    Own training data do not take the recipe's validation data along, whose classes are others.

    Args:
        flags: Flags as `as_flags` returns them.
        default: Config of the recipe.

    Returns:
        The flags, with an empty `--data.val` unless that is given too.

    Raises:
        SlipError: If training data are given alone, in place of those of a recipe with both.
    """
    given, data = given_values(flags), getattr(default, "data", None)
    named = getattr(data, "val", "")
    if not named or not hasattr(data, "val_share") or "data.val" in given:
        return [*flags]
    if "data.val_share" in given:
        return [*flags, "--data.val", ""]
    train = given.get("data.train")
    if train not in (None, getattr(data, "train", None)) and not {"-h", "--help"} & {*flags}:
        raise SlipError(
            f"--data.train {train} takes the place of the recipe's training data, but not of its "
            "validation data: name --data.val DIR too, or --data.val-share 0.1, which holds out a "
            f"part of the training data (--data.val {named} keeps the recipe's)"
        )
    return [*flags]


def given_values(flags: Sequence[str]) -> dict[str, str]:
    """Read what a command line sets.

    Args:
        flags: Flags as `as_flags` returns them.

    Returns:
        Name of a setting, with underscores -> its value as text, of several the first; empty
        without one.
    """
    found: dict[str, str] = {}
    for word, after in zip(flags, [*flags, "--"][1:], strict=True):
        if word.startswith("--"):
            name, equals, text = word.removeprefix("--").partition("=")
            value = text if equals or after.startswith("--") else after
            found[name.replace("-", "_")] = value
    return found


def _flag(name: str, text: str, value: Any) -> list[str]:
    text = expand_home(text)
    if isinstance(value, bool) and text.lower() in ("true", "false", "1", "0"):
        start, dot, last = name.rpartition(".")
        return [f"--{name}" if text.lower() in ("true", "1") else f"--{start}{dot}no-{last}"]
    if isinstance(value, tuple | list):
        return [f"--{name}", *(part for part in re.split(r"[,\s]+", text.strip("()[] ")) if part)]
    return [f"--{name}={text}"] if text.startswith("-") else [f"--{name}", text]


def _values(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for one in fields(config):
        value = getattr(config, one.name)
        if is_dataclass(value) and not isinstance(value, type):
            yield from _values(value, f"{prefix}{one.name}.")
        else:
            yield f"{prefix}{one.name}", value
