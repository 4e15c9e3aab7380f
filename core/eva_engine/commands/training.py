"""Command line of a project's training: a recipe, and its values as options."""

import argparse
import contextlib
import json
import os
import re
import runpy
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from eva_backbone.checkpoints.registry import find_backbone
from eva_backbone.checkpoints.run_folders import (
    CONFIG,
    LATEST,
    complete_checkpoints,
    has_trained_weights,
)
from eva_backbone.variants import FAMILIES, VARIANTS, fine_tuning
from eva_data.saving import require_writable
from eva_engine.config import (
    MESSAGES,
    METRICS,
    Recipe,
    RunConfig,
    SplitConfig,
    as_plain,
    describe_saved,
    require,
    require_evaluated,
)
from eva_report.terminal import show
from eva_runs.commands import Command, echo, program_name
from eva_runs.errors import exit_on_error
from eva_runs.options import (
    add_download_option,
    add_lora,
    add_size_and_length,
    command_parser,
    resolve_auto_batch,
)
from eva_runs.output_folder import number_folder, reserve_folder, watch
from eva_runs.recipes import TASKS, find_recipe, name_on_own_data, require_python
from eva_runs.request import RunRequest

C = TypeVar("C")
R = TypeVar("R", bound=Recipe)
Adapt = Callable[[Sequence[str], C], tuple[list[str], str]]

_SETTING = re.compile(r"[A-Za-z_][\w-]*(\.[\w-]+)*=")
_TRACES = ("log.txt", "log_rank*.txt", "checkpoints", CONFIG)  # of a run before it begins


def load_recipe(file: str | Path, kind: type[C], **changes: Any) -> C:
    """Read the `config` of a recipe, a Python file, for one that states its difference from it.

    `changes` are new values by name; a dict has those of a group, as `run={"epochs": 3}`.

    Raises:
        ValueError: If it is of another kind, or defines no config of this class.
    """
    require_python(Path(file))
    config = runpy.run_path(str(file)).get("config")
    if not isinstance(config, kind):
        raise ValueError(f"{Path(file).name} defines no `config` of {kind.__name__}")
    for name, new in changes.items():
        value = replace(getattr(config, name), **new) if isinstance(new, dict) else new
        changes[name] = value
    return replace(config, **changes) if changes else config  # type: ignore[type-var]


class Parsed(NamedTuple, Generic[C]):
    """What a command line of a training says."""

    config: C  # the recipe's, with the overrides
    only_print: bool
    recipe: str  # name of its file without the suffix
    changes: str = ""  # lines on what of the recipe the command line changes


def parse(
    kind: type[C],
    arguments: Sequence[str],
    *,
    program: str,
    adapt: Adapt[C] | None = None,
) -> Parsed[C]:
    """Parse `RECIPE [--print-config] [--name.of.value VALUE ...] [name.of.value=VALUE ...]`.

    The words are in any order. `program`, TASK/FILE, has the task whose recipes can be given by
    name; `adapt` takes flags and the config of the recipe, of class `kind`, and returns the flags
    with those that follow from them, and a line on that or an empty one.

    Raises:
        SystemExit: 2 for a wrong option or value; 0 after `--help`.
        ValueError: If there is no such recipe or backbone.
    """
    task = program.partition("/")[0]
    program = program_name(program)
    parser = command_parser(
        "Train from a recipe, a Python file that defines `config`. With a recipe,\n"
        "--help lists all its values; `eva recipes` lists the recipes. Values are\n"
        "written --run.epochs 3 or run.epochs=3, before or after the recipe.",
        prog=program,
        usage=f"{program} RECIPE [flags] [--name VALUE ...]",
        add_help=False,
    )
    add_download_option(parser)
    add_size_and_length(parser)
    help_text = "folder of the run (default: output/NAME, or NAME-2 where a run has it)"
    parser.add_argument("--output", metavar="DIR", help=help_text)
    parser.add_argument("--resume", action="store_true", help="continue the run of the folder")
    if "lora" in kind.__dataclass_fields__:  # type: ignore[attr-defined]
        add_lora(parser)
    parser.add_argument("--print-config", action="store_true", help="print the config and stop")
    # the launcher `deepspeed` adds it; the variable LOCAL_RANK, which it sets too, is what counts
    parser.add_argument("--local_rank", help=argparse.SUPPRESS)
    parsed, words = parser.parse_known_args(arguments)
    recipe, words = _take_recipe(task, words)
    if recipe is None:
        parser.print_help()
        sys.exit(0 if {"-h", "--help"} & {*words} else 2)
    file = _file_of(task, recipe)
    default = load_recipe(file, kind)
    request = RunRequest.from_options(parsed)
    words = [*settings_of(request, default), *words]  # a setting of its own comes last
    try:
        flags = _without_other_validation(as_flags(words, default), default)
        flags, changes = (flags, "") if adapt is None else adapt(flags, default)
        import tyro

        config: Any = tyro.cli(kind, default=default, args=flags, prog=f"{program} {file.name}")
        if request.batch:
            count = request.accumulation_steps(config.run.batch_size * config.run.accumulate)
            run = replace(config.run, batch_size=request.batch, accumulate=count)
            config = replace(config, run=run)
        values = given_values(flags)
        if "run.output" not in values:
            run = replace(config.run, output=_name_output(config.run, file, values))
            config = replace(config, run=run)
        if isinstance(getattr(config, "data", None), SplitConfig):
            require_evaluated(config.run.best_metric, config.data)
    except ValueError as error:
        parser.exit(2, f"{program}: error: {error}\n")
    return Parsed(config, parsed.print_config, file.stem, changes)


def _name_output(run: RunConfig, recipe: Path, values: Mapping[str, str]) -> Path:
    """Name the folder of a run by own data and recipe, or as the recipe does."""
    named = name_on_own_data(recipe, data) if (data := values.get("data.train")) else ""
    folder = run.output.parent / named if named else run.output
    return number_folder(folder, has_run, resume=run.resume)


def has_run(folder: Path) -> bool:
    """Return whether a folder has what a run has trained."""
    log = folder / METRICS
    return has_trained_weights(folder) or (log.is_file() and log.stat().st_size > 0)


def _take_recipe(task: str, words: Sequence[str]) -> tuple[str | None, list[str]]:
    """Split off the first word that names a recipe, or else can be no value of a flag."""
    bare = [i for i, w in enumerate(words) if not w.startswith("-") and not _SETTING.match(w)]
    alone = [i for i in bare if not i or not words[i - 1].startswith("--") or "=" in words[i - 1]]
    positions = [i for i in (*alone, *bare) if _is_recipe(task, words[i])]
    for position in (*positions, *alone):
        return words[position], [*words[:position], *words[position + 1 :]]
    return None, [*words]


def _file_of(task: str, recipe: str) -> Path:
    return find_recipe(task, recipe) if task in TASKS else Path(recipe)


def _is_recipe(task: str, word: str) -> bool:
    with contextlib.suppress(ValueError, OSError):
        file = _file_of(task, word)
        return file.suffix == ".py" and file.is_file()
    return False


def as_flags(words: Sequence[str], default: Any) -> list[str]:
    """Write settings such as `run.epochs=3` or `optimizer.betas=0.9,0.98` as flags of `tyro`."""
    values = dict(_values(default))
    flags: list[str] = []
    for before, word in zip(["", *words], words, strict=False):
        name, _, argument = word.removeprefix("--").partition("=")
        value = values.get(name.replace("-", "_"))
        flag = before.removeprefix("--").replace("-", "_")  # whose value a path like x=1 may be
        takes_value = before[:2] == "--" and not isinstance(values.get(flag, True), bool)
        if takes_value or not _SETTING.match(word.removeprefix("--")):
            flags.append(word)
        elif isinstance(value, bool) and argument.lower() in ("true", "false"):
            group, dot, last = name.rpartition(".")
            no = "no-" if argument.lower() == "false" else ""
            flags.append(f"--{group}{dot}{no}{last}")
        elif isinstance(value, tuple | list):
            flags += [f"--{name}", *re.findall(r"[^,\s()\[\]]+", argument)]
        else:
            flags.append(f"--{name}={argument}")
    return flags


def settings_of(request: RunRequest, default: Any) -> list[str]:
    """Write what a user asks of a training, but for its batch, as settings of a recipe.

    Sizes keep their proportion, such as a teacher's to its student's, and so does a masked share.
    """
    settings = {
        "run.output": request.output,
        "run.resume": request.resume or None,
        "run.epochs": request.epochs,
        "run.accumulate": request.accumulate,
        "run.precision": request.precision,
        "run.seed": request.seed,
        "lora.rank": request.lora,
    }
    if bands := request.band_request():
        if "data.bands" not in dict(_values(default)):
            request.require_rgb()
        settings |= {
            "data.bands": bands.count,
            "data.band_range": bands.range,
            "data.show_bands": bands.show,
        }
    if request.backbone:
        settings |= _settings_of_backbone(request.backbone, dict(_values(default)))
    words = [f"{name}={value}" for name, value in settings.items() if value is not None]
    side = request.image_size
    if side:
        values = dict(_values(default))
        sizes = {key: value for key, value in values.items() if key.endswith(".image_size")}
        require(bool(sizes), f"--image-size {side}: the recipe has no image_size")
        first = next(iter(sizes.values()))
        words += [f"{key}={round(value * side / first)}" for key, value in sizes.items()]
        masked = values.get("mask.num_masked")
        if masked:
            words.append(f"mask.num_masked={max(1, round(masked * (side / first) ** 2))}")
    return words


def _settings_of_backbone(name: str, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Write a plain ViT as settings of a recipe: sizes, weights, pixels, fine-tuning."""
    variant, weights = find_backbone(name)
    family, tuning = FAMILIES[VARIANTS[variant].family], fine_tuning(variant)
    model = "student" if "student.variant" in recipe else "model"
    settings = {
        f"{model}.variant": variant,
        f"{model}.init_checkpoint": weights,
        "model.freeze_patch_embed": False,
        "data.mean": family.mean,
        "data.std": family.std,
    }
    require(f"{model}.variant" in recipe, f"--backbone {name}: the recipe has no model.variant")
    of_classifier = model == "model" and "model.text" not in recipe
    if of_classifier and not recipe.get("model.linear_probe"):
        settings["model.drop_path_rate"] = tuning.drop_path_rate
        settings["optimizer.layer_decay"] = tuning.layer_decay
    return {key: value for key, value in settings.items() if key in recipe}


def _values(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            yield from _values(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", value


def given_values(flags: Sequence[str]) -> dict[str, str]:
    """Read off flags what they set: name with underscores -> first value as text, or empty."""
    values: dict[str, str] = {}
    for word, after in zip(flags, [*flags, "--"][1:], strict=True):
        if word.startswith("--"):
            name, equals, value = word.removeprefix("--").partition("=")
            values[name.replace("-", "_")] = value if equals or after.startswith("--") else after
    return values


def _without_other_validation(flags: list[str], default: Any) -> list[str]:
    """Refuse to validate own training data on a recipe's validation data; drop it for a share."""
    values, data = given_values(flags), getattr(default, "data", None)
    if not isinstance(data, SplitConfig) or not data.val or "data.val" in values:
        return flags
    if "data.val_share" in values:
        return [*flags, "--data.val", ""]
    own = values.get("data.train", data.train)
    if own != data.train and not {"-h", "--help"} & {*flags}:
        raise ValueError(
            f"--data.train {own} replaces the recipe's training data, but not its "
            f"validation data {data.val}: name --data.val DIR too, or --data.val-share 0.1"
        )
    return flags


def training_command(
    kind: type[R],
    train: Callable[..., None],
    *,
    program: str,
    check: Callable[[R], None] = lambda config: None,
    adapt: Adapt[R] | None = None,
    planning: str = "",
) -> Command[Parsed[R]]:
    """Make the command of a project's training.

    `train` takes the config, the device, and the recipe's name as `recipe`. `check` refuses paths
    that are not there, before torch is imported; `program` and `adapt` are those of `parse`; the
    module `planning` measures steps for `--batch auto`. It ends as `eva_runs.errors.exit_on_error`
    says, and with 75 after a signal and a checkpoint.
    """

    def device_of(words: Sequence[str]) -> str:
        device = parse(kind, words, program=program, adapt=adapt).config.run.device
        if device == "cpu":  # DeepSpeed chooses when a plan imports it
            os.environ.setdefault("DS_ACCELERATOR", "cpu")
        return device

    def parse_and_check(arguments: Sequence[str]) -> Parsed[R]:
        words, batch = resolve_auto_batch(arguments, planning, device_of)
        parsed = parse(kind, words, program=program, adapt=adapt)
        if not parsed.only_print:
            _check_output(parsed.config.run)
            check(parsed.config)  # last: it may download weights
        return parsed._replace(changes=f"{parsed.changes}\n{batch}".strip())

    def run(parsed: Parsed[R]) -> None:
        if parsed.only_print:
            echo(json.dumps(as_plain(parsed.config), indent=2))
        else:
            _run_training(parsed, train, program_name(program))

    return Command(program, parse_and_check, run)


def _run_training(parsed: Parsed[Any], train: Callable[..., None], program: str) -> None:
    """Train in the run's folder, which no other run may use, with all processes."""
    run, begun = parsed.config.run, watch(parsed.config.run.output / METRICS)

    def log_of_begun() -> Path | None:
        """Return the log that takes a traceback; a refused run leaves none."""
        return file if file and (file.exists() or begun()) else None

    def saved() -> str:
        return describe_saved(next(reversed(complete_checkpoints(run.output)), None))

    file: Path | None = None
    with exit_on_error(program, log=log_of_begun, begun=begun, saved=saved):
        from eva_engine import distributed
        from eva_engine.run_log import logging_to_folder

        with (
            distributed.process_group(run.device) as device,
            reserve_folder(
                run.output,
                "training",
                traces=_TRACES,
                begun=METRICS,
                settings=as_plain(parsed.config),
                check=lambda: _check_output(run),
                record=False,
            ),
            logging_to_folder(run.output) as file,
        ):
            show(*parsed.changes.splitlines())
            if "TORCHELASTIC_ERROR_FILE" in os.environ:  # torchrun's report names the error
                from torch.distributed.elastic.multiprocessing.errors import record

                train = record(train)
            train(parsed.config, device, recipe=parsed.recipe)


def _check_output(run: RunConfig) -> bool:
    """Refuse a folder with a run that is not to be continued; return whether there is one."""
    if (run.output / LATEST).exists():  # of detectron2 or mmengine
        raise ValueError(MESSAGES.foreign(run.output))
    complete = complete_checkpoints(run.output)
    if not run.resume and has_trained_weights(run.output):
        newest = complete[-1].name if complete else ""
        raise ValueError(MESSAGES.used(run.output, checkpoint=newest))
    require_writable(run.output)
    return bool(complete)
