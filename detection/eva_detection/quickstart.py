"""The quick start: make data; fine-tune, evaluate and report. Each step is a command of its own."""

import argparse
import json
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from eva_data.files import make_folder, write_text
from eva_detection.data.places import DIGIT_SCENES, ROOT_VARIABLE
from eva_detection.training.output_folder import last_checkpoint, saved_progress
from eva_runs.commands import complain, program_name, say
from eva_runs.errors import ending
from eva_runs.interruption import run_step

_SETTINGS = "quickstart.json"
CONFIG = "detection/configs/demo/cascade_mask_rcnn_vitdet_eva_debug.py"
_ABOVE = Path(__file__).resolve().parents[2]  # of a checkout: its root
_WHERE = {  # words of `eva` -> the same as a program of a checkout, and as code
    "data make-demo": ("tools/make_demo_data.py", "from eva_demo.command import main"),
    "detection train": (
        "detection/train_net.py",
        "from eva_detection.command_line import train as main",
    ),
}


def main(arguments: Sequence[str] | None = None, *, repository: Path | None = None) -> None:
    """Run the quick start; the same command continues one that was interrupted."""
    if repository is None:
        repository = _ABOVE if (_ABOVE / CONFIG).is_file() else Path.cwd()
    args = _parse(repository, arguments)
    output, datasets = args.output.resolve(), args.datasets.resolve()
    overrides = [f"train.seed={args.seed}", *args.overrides]
    with ending(program_name("quickstart.py")):
        if args.fresh and (output / _SETTINGS).exists():  # never another folder
            shutil.rmtree(output)
        _claim(output, overrides)
    words = ["--config-file", CONFIG, "--resume", f"train.output_dir={output}", *overrides]
    steps = {"data make-demo": ["--output", str(datasets / DIGIT_SCENES)], "detection train": words}
    for number, (name, more) in enumerate(steps.items(), start=1):
        program, source = _WHERE[name]
        there = (repository / program).is_file()
        say(f"\n== {number}. {name}\n$ {f'python {program}' if there else f'eva {name}'}")
        say(f"  {shlex.join(more)}")
        sys.stdout.flush()
        start = [str(repository / program)] if there else ["-c", f"{source}; main()"]
        command = [sys.executable, *start, *more]
        environment = {ROOT_VARIABLE: str(datasets)}
        if code := run_step(command, environment=environment, folder=repository):
            complain(f"\n'{name}' stopped with exit code {code}; {saved_progress(output)}")
            sys.exit(code)


def _parse(repository: Path, arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=program_name("quickstart.py"),
        description="Fine-tune a small EVA detector on digit scenes on a CPU, evaluate it and "
        "write a report. The same command continues an interrupted run.",
        allow_abbrev=False,
    )
    add, place = parser.add_argument, repository / "output"
    add("--output", type=Path, default=place / "quickstart", help="folder of the run")
    add("--datasets", type=Path, default=place / "datasets", help="folder for the demo data")
    add("--seed", type=int, default=0, help="seed of the training")
    add("--fresh", action="store_true", help="delete an earlier run first")
    add("overrides", nargs="*", help="config values, such as train.max_iter=300")
    return parser.parse_intermixed_args(arguments)


def _claim(output: Path, overrides: list[str]) -> None:
    """Tie the folder to its settings, so that another run cannot continue in it."""
    settings = output / _SETTINGS
    before = json.loads(settings.read_text(encoding="utf-8")) if settings.exists() else {}
    if before.get("overrides") == overrides:
        return
    # a run that was refused, for a wrong setting, has saved nothing
    if last_checkpoint(output) if before else output.exists() and any(output.iterdir()):
        raise ValueError(
            f"{output} holds something else ({shlex.join(before.get('overrides', []))}), not a run "
            f"with {shlex.join(overrides)}: choose another --output, or start over with --fresh"
        )
    make_folder(output)
    write_text(settings, json.dumps({"overrides": overrides}) + "\n")
