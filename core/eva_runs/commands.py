"""Data, outputs and exit codes of commands, and the command to run next."""

import argparse
import importlib
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from operator import attrgetter
from pathlib import Path
from typing import Any, NoReturn

from eva_data.files import home_expanded, make_folder, require_free
from eva_data.progress import above_bars
from eva_runs import processes
from eva_runs.extras import sentence_of
from eva_runs.interruption import EXIT_KEYBOARD

EXIT_UNREAD = 141  # as a shell counts SIGPIPE
DEMO_DATA = {  # folder below output/datasets -> arguments of the command that makes it
    "digit_scenes": (),
    "digit_scenes_semantic": ("--formats", "semantic"),
    "digit_folder": ("--formats", "folder"),
    "digit_motion": ("--formats", "video", "--train", "4000", "--val", "400"),
    "digit_captions": ("--formats", "captions", "--train", "4000"),
}
_ELSEWHERE = ("torchvision:", "hf:")  # what names a dataset, and not a path


def say(text: str) -> None:
    """Write a line to the standard output; what its encoding does not have is escaped.

    A reader that has seen enough, as in `... | head`, ends the program with `EXIT_UNREAD`.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        with above_bars(sys.stdout):
            print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)  # noqa: T201
    except BrokenPipeError:
        leave_unread()


def leave_unread() -> NoReturn:
    """End the program, whose standard output has no reader any more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python's last flush goes there
    sys.exit(EXIT_UNREAD)


def complain(text: str) -> None:
    """Write a line to the standard error output, if there is one."""
    if sys.stderr is not None:
        sys.stderr.write(f"{text}\n")


def program_name(default: str) -> str:
    """Return what a command is called: by the words of `eva`, or its own program in a checkout."""
    called = sys.argv[0]
    return called if called.startswith("eva ") else default


def command_to_run(words: str, program: str, *arguments: str | Path) -> str:
    """Write a command for the user to run next, for a shell, as this process was called.

    That is by its words after `eva` ("detection demo"), or in a checkout by the path of its program
    ("detection/demo.py").
    """
    start = ["eva", *words.split()] if sys.argv[0].startswith("eva ") else ["python", program]
    return shlex.join([*start, *map(str, arguments)])


def entry(function: str) -> NoReturn:
    """Be the program of a command line, see `called`, and exit with its code."""
    sys.exit(called(function))


def deferred(name: str) -> Callable[..., Any]:
    """Make a function that imports the one it stands for when it is called.

    Args:
        name: `module:function` or `module:Class.method`; the module may import torch.
    """

    def call(*arguments: Any, **options: Any) -> Any:
        module, _, function = name.partition(":")
        return attrgetter(function)(importlib.import_module(module))(*arguments, **options)

    return call


def called(function: str, *arguments: Any) -> int:
    """Import and call the function of a command line, "module:name"; return its exit code.

    What is not installed, or a Ctrl-C while modules are imported, is one line.
    """
    module, _, name = function.partition(":")
    if "PYTORCH_CUDA_ALLOC_CONF" not in os.environ:  # sizes that change leave fewer gaps
        os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    title = program_name(Path(sys.argv[0]).name)
    try:
        return int(getattr(importlib.import_module(module), name)(*arguments) or 0)
    except ImportError as error:
        if (sentence := sentence_of(error)) is None:
            raise
        complain(f"{title}: {sentence}")
        return 1
    except KeyboardInterrupt:
        if processes.speaks():
            complain(f"{title}: stopped by Ctrl-C")
        return EXIT_KEYBOARD


def program(
    parse: Callable[[Sequence[str] | None], argparse.Namespace],
    work: Callable[[argparse.Namespace], int],
    *,
    refused: int = 2,
    name: str = "error",
    interrupted: str = "nothing was written",
) -> Callable[..., int]:
    """Make the `main` of a program of one step: from arguments, or those of the process, to a code.

    `parse` ends the process for wrong arguments, `work` returns the exit code. An error that the
    user can fix gives the code `refused` and one sentence, which begins with `name`; Ctrl-C gives
    130, and `interrupted` says what it leaves behind.
    """

    def main(arguments: Sequence[str] | None = None) -> int:
        try:
            return work(parse(arguments))
        except (OSError, ValueError, ImportError) as error:
            reason = sentence_of(error) if isinstance(error, ImportError) else str(error)
            if reason is None:
                raise
            complain(f"{program_name(name)}: {reason}")
            return refused
        except KeyboardInterrupt:
            complain(f"interrupted; {interrupted}")
            return EXIT_KEYBOARD

    return main


def check_outputs(
    outputs: Sequence[Path | None], *, overwrite: bool, inputs: Mapping[str, Path | None]
) -> None:
    """Refuse to write files over what is to be kept, before any work is done.

    `inputs` are the files that the command reads by what the messages call them; files that were
    not asked for are None.

    Raises:
        ValueError: If two outputs are one file, an output is an input, lies in no folder, or is
            there already and may not be replaced.
        UnwritableError: If a folder takes no file.
    """
    wanted = [path for path in outputs if path is not None]
    for index, path in enumerate(wanted):
        wrong = [f"is the {what}" for what, one in inputs.items() if one and _same(path, one)]
        wrong += ["is another output too" for one in wanted[index + 1 :] if _same(path, one)]
        wrong += [] if path.parent.is_dir() else ["is in a folder that is not there"]
        if wrong:
            raise ValueError(f"{path} {wrong[0]}: name another file")
    require_free(wanted, overwrite=overwrite)
    for folder in dict.fromkeys(path.parent for path in wanted):
        make_folder(folder)  # it is there; fails now, not after hours


def _same(path: Path, other: Path) -> bool:
    """Test whether two names lead to one file, by a hard link too."""
    there = path.exists() and other.exists()
    return path.samefile(other) if there else path.resolve() == other.resolve()


def require_data(location: str, *, name: str, forms: str = "") -> None:
    """Refuse a place of data, named by an option or setting, where nothing is.

    It is a path, a pattern such as `shards/{0000..0099}.tar`, a list with a part such as
    `captions.json#train`, or the name of a public dataset, which is not looked for; `forms` says
    what it may be.

    Raises:
        ValueError: If nothing is there, with the command that makes it where it is demo data.
    """
    if location.startswith(_ELSEWHERE):
        return
    parts = home_expanded(location).parts
    fixed = takewhile(lambda part: not any(sign in part for sign in "{*?["), parts)
    there = Path(*fixed)
    if there.exists() or Path(str(there).partition("#")[0]).exists():
        return
    advice = f"name {forms}"
    if folder := demo_folder(location):
        program, more = "tools/make_demo_data.py", DEMO_DATA[folder.name]
        command = command_to_run("data make-demo", program, "--output", folder, *more)
        advice = f"this makes it: {command}"
    raise ValueError(f"{name}: there is no {there}; {advice}")


def demo_folder(location: str) -> Path | None:
    """Find the folder of demo data that a path or pattern lies in; None if there is none."""
    path = home_expanded(location)
    return next((one for one in (*reversed(path.parents), path) if one.name in DEMO_DATA), None)
