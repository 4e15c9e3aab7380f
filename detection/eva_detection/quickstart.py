"""The quick start: make data; fine-tune, evaluate and report. Each step is a command of its own.

Everything heavy is imported where it is used, so that `--help` answers at once.
"""

import argparse
import contextlib
import json
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from eva_data.files import UnwritableError, make_folder, write_text
from eva_detection.config.words import USUAL_SETTINGS
from eva_runs.command_line.parsing import Parser
from eva_runs.command_line.steps import run_step
from eva_runs.commands import ended, program_name

_SETTINGS = "quickstart.json"
CONFIG = "detection/configs/demo/cascade_mask_rcnn_vitdet_eva_debug.py"
_ABOVE = Path(__file__).resolve().parents[2]  # of a checkout: its root
_MODULES = {  # program of a checkout -> the same where there is none
    "tools/make_demo_data.py": "eva_demo.command",
    "detection/train_net.py": "eva_detection.training.command",
}


def main(arguments: Sequence[str] | None = None, *, repository: Path | None = None) -> None:
    """Command line.

    Args:
        arguments: Arguments; by default the process's.
        repository: Root of the checkout, where `tools/` and `detection/` are; None looks for one
            around this package. Without a checkout the steps are modules, and the results are in
            the current folder.

    Raises:
        SystemExit: If a step fails, with what is saved and with its exit code: 75 if a signal
            stopped it after a checkpoint.
    """
    if repository is None:
        repository = _ABOVE if (_ABOVE / CONFIG).is_file() else Path.cwd()
    args = _parse(repository, arguments)
    output, datasets = args.output.resolve(), args.datasets.resolve()
    from eva_detection.data.places import DIGIT_SCENES

    if args.fresh and (output / _SETTINGS).exists():  # never another folder
        shutil.rmtree(output)
    overrides = [f"train.seed={args.seed}", *args.overrides]
    _claim(output, overrides)
    environment = {"DETECTRON2_DATASETS": str(datasets)}

    def step(title: str, script: str, *arguments: str) -> None:
        there = (repository / script).is_file()
        shown = [script] if there else ["-m", _MODULES[script]]
        program = [str(repository / script)] if there else shown
        command = [sys.executable, *program, *arguments]
        print(f"\n== {title}\n$ python {shlex.join([*shown, *arguments])}", flush=True)
        if code := run_step(command, environment=environment, folder=repository):
            raise ended(
                f"\n'{title}' stopped with exit code {code} (its message is above, its log in "
                f"{output}); {_what_is_saved(output)}",
                code,
            )

    step("1. Demo data", "tools/make_demo_data.py", "--output", str(datasets / DIGIT_SCENES))
    arguments = ["--config-file", CONFIG, "--resume", f"train.output_dir={output}", *overrides]
    step("2. Fine-tuning, evaluation and report", "detection/train_net.py", *arguments)


def _parse(repository: Path, arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog=program_name("quickstart.py"),
        description="Fine-tune a small EVA detector on digit scenes on a CPU, evaluate it and "
        "write a report. The same command continues an interrupted run.",
        settings=USUAL_SETTINGS,
    )
    parser.add_argument(
        "--output", type=Path, default=repository / "output/quickstart", help="folder of the run"
    )
    parser.add_argument(
        "--datasets",
        type=Path,
        default=repository / "output/datasets",
        help="folder for the demo data",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the training")
    parser.add_argument("--fresh", action="store_true", help="delete an earlier run first")
    parser.add_argument("overrides", nargs="*", help="config values, such as train.max_iter=300")
    return parser.parse_args(arguments)


def _what_is_saved(output: Path) -> str:
    """Say what the same command would do after an interruption."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        name = (output / "last_checkpoint").read_text(encoding="utf-8").strip()
        if (output / name).is_file():
            return f"the same command continues from {name}"
    return "nothing is saved yet: the same command begins from scratch"


def _claim(output: Path, overrides: list[str]) -> None:
    """Tie the folder to its settings, so that another run cannot continue in it."""
    from eva_detection.training.output_folder import check_unused

    settings = output / _SETTINGS
    if settings.exists():
        try:
            before = [*map(str, json.loads(settings.read_text(encoding="utf-8"))["overrides"])]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise SystemExit(
                f"{settings} cannot be read ({error}): start over with --fresh, or choose another "
                "--output"
            ) from error
        if before == overrides:
            return
        try:
            check_unused(output)  # a run that was refused, for a wrong setting, has saved nothing
        except ValueError as error:
            raise SystemExit(
                f"{output} holds a run with {shlex.join(before)}, not {shlex.join(overrides)}; "
                "choose another --output or start over with --fresh"
            ) from error
    elif output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise SystemExit(f"{output} exists and is not a quick start; choose another --output")
    try:
        make_folder(output)
        write_text(settings, json.dumps({"overrides": overrides}) + "\n")
    except UnwritableError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
