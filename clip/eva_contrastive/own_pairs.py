"""What a user's own pairs, named on the command line, leave out of a recipe.

A recipe may evaluate class folders that have nothing to do with them, by sentences about these, and
keep the weights that are best there.
"""

from collections.abc import Sequence
from pathlib import Path

from eva_contrastive.config import OF_CLASSES, ContrastiveConfig, DataConfig
from eva_data.files import home_expanded
from eva_engine.commands.words import given_values
from eva_runs.required_data import demo_folder

_OF_OWN_PAIRS = "image_to_text_r1"


def without_other_classes(
    flags: Sequence[str], default: ContrastiveConfig
) -> tuple[list[str], str]:
    """Leave out a recipe's zero-shot classes that `--data.train` or `--data.zero-shot ''` excludes.

    With them go the recipe's sentences, and `run.best_metric` becomes one of the pairs where it is
    one of the classes. What the command line says is never changed.

    Args:
        flags: Flags as `eva_engine.commands.words.as_flags` returns them.
        default: Config of the recipe.

    Returns:
        The flags with those that follow from them, and a line on that; or the flags, and an empty
        line.
    """
    given, data, metric = given_values(flags), default.data, default.run.best_metric
    named = "data.zero_shot" in given
    if given.get("data.zero_shot") or not (named or _are_others(given, data)):
        return [*flags], ""
    more = [] if named else ["--data.zero-shot", ""]
    said = [] if named else [f"data.zero_shot={data.zero_shot} of the recipe is left out"]
    if not given.get("data.templates"):
        flags = _without_empty(flags, "data.templates")
        more += ["--data.templates", *DataConfig.templates]
    if metric in OF_CLASSES and "run.best_metric" not in given:
        best = _OF_OWN_PAIRS if _has_pairs(given, data) else ""
        more += ["--run.best-metric", best]
        chosen = f"by {best} of the validation pairs" if best else "by nothing"
        said.append(f"the best weights are chosen {chosen}, since {metric} needs data.zero_shot")
    if not named:
        said.append("name your own folder of class folders as --data.zero-shot to evaluate it")
    return [*flags, *more], "; ".join(said)


def _without_empty(flags: Sequence[str], name: str) -> list[str]:
    """Take away a flag that has no value, or an empty one."""
    kept: list[str] = []
    after = False
    for word in flags:
        is_name = word.replace("-", "_") == f"__{name}"
        kept += [] if is_name or (after and not word) else [word]
        after = is_name
    return kept


def _are_others(given: dict[str, str], data: DataConfig) -> bool:
    """Test whether own pairs are named, and the recipe's classes are a demo's or are not there."""
    train = given.get("data.train", data.train)
    wanted = given.get("data.templates") or given.get("run.best_metric") in OF_CLASSES
    if not data.zero_shot or train == data.train or wanted:
        return False
    classes = home_expanded(data.zero_shot)
    if not classes.exists():
        return True
    demo = demo_folder(data.zero_shot)
    return demo is not None and not _absolute(train).is_relative_to(_absolute(demo))


def _absolute(place: str | Path) -> Path:
    return home_expanded(place).absolute()


def _has_pairs(given: dict[str, str], data: DataConfig) -> bool:
    share = given.get("data.val_share", f"{data.val_share:g}")
    return bool(given.get("data.val", data.val) or share.strip("0."))
