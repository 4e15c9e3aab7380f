"""Data, outputs and exit codes of commands, and the command to run next."""

import contextlib
import importlib
import json
import logging
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from itertools import takewhile
from operator import attrgetter
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar

from eva_data.files import display_path, expand_home
from eva_data.progress import above_bars
from eva_data.saving import make_folder, require_free
from eva_runs import processes
from eva_runs.errors import exit_on_error, stderr_from_main_process

Options = TypeVar("Options")
EXIT_BROKEN_PIPE = 141  # as a shell counts SIGPIPE
JSON = "--json"  # of every command: its result alone on the standard output
DEMO_DATA = {  # folder below output/datasets -> arguments of the command that makes it
    "digit_scenes": (),
    "digit_scenes_semantic": ("--formats", "semantic"),
    "digit_folder": ("--formats", "folder"),
    "digit_motion": ("--formats", "video", "--train", "4000", "--val", "400"),
    "digit_captions": ("--formats", "captions", "--train", "4000"),
}
_TALKATIVE = (  # loggers: of retries of downloads, other devices' kernels, optimisations
    *("huggingface_hub.utils._http", "torchao", "torch.utils._pytree"),
    *("torch.fx._symbolic_trace", "onnx_ir", "onnxscript"),
)
_DATASET_PREFIXES = ("torchvision:", "hf:")  # what names a dataset, and not a path


def echo(message: str) -> None:
    """Write a line to the standard output; what its encoding does not have is escaped.

    A reader that has seen enough, as in `... | head`, ends the program with `EXIT_BROKEN_PIPE`.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        with above_bars(sys.stdout):
            print(message.encode(encoding, "backslashreplace").decode(encoding), flush=True)  # noqa: T201
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's last flush
        sys.exit(EXIT_BROKEN_PIPE)


def program_name(default: str) -> str:
    """Return what a command is called: by the words of `eva`, or its own program in a checkout."""
    called = sys.argv[0]
    return called if called.startswith("eva ") else default


def command_to_run(words: str, program: str, *arguments: str | Path) -> str:
    """Write a command for the user to run next, for a shell, as this process was called.

    That is by its words after `eva` ("detection demo"), or in a checkout by the path of its program
    ("detection/demo.py"); behind the bits of images where the environment states them.
    """
    start = ["eva", *words.split()] if sys.argv[0].startswith("eva ") else ["python", program]
    return shlex.join([*start, *map(display_path, arguments)])


class Result(int):
    """The exit code of a command, with its result, which `--json` prints alone."""

    value: object

    def __new__(cls, value: object, code: int = 0) -> "Result":
        """Join what JSON can hold, or the path of a JSON file, with an exit code."""
        result = super().__new__(cls, code)
        result.value = value
        return result


def quiet_libraries() -> None:
    """Silence, in this process, what libraries say in every run, which a user cannot act on."""
    for message in ("torch.meshgrid", "The draw is False"):
        warnings.filterwarnings("ignore", message=message)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)


@dataclass(frozen=True)
class Command(Generic[Options]):
    """A command; called with arguments, or None for those of the process, it returns the exit code.

    With `--json` the result is printed, and what the command says goes to the standard error
    output.

    Attributes:
        name: What its messages begin with, unless it is called by the words of `eva`.
        parse: Function that parses and checks the arguments before torch is imported. Of several
            processes one says what is wrong.
        run: Function of what `parse` returns, which returns the exit code, a `Result` or None.
        error_code: Exit code after an error, see `eva_runs.errors`; 2 where 1 is a result.
        interrupted: What Ctrl-C leaves behind, for its message.
    """

    name: str
    parse: Callable[[Sequence[str]], Options]
    run: Callable[[Options], int | None]
    _: KW_ONLY
    error_code: int = 1
    interrupted: str = ""

    def __call__(self, arguments: Sequence[str] | None = None) -> int:
        """Parse the arguments, do the work, and return the exit code."""
        words = [*(sys.argv[1:] if arguments is None else arguments)]
        quiet_libraries()
        as_json = JSON in words
        words = [word for word in words if word != JSON]
        saved = (lambda: self.interrupted) if self.interrupted else None
        end = partial(exit_on_error, program_name(self.name), code=self.error_code, saved=saved)
        with contextlib.redirect_stdout(sys.stderr if as_json else sys.stdout):
            with stderr_from_main_process(), end():
                options = self.parse(words)
            with end():
                code = self.run(options)
        if as_json:
            _print_json(code)
        return 0 if code is None else code


def _print_json(code: int | None) -> None:
    """Write the result that comes with an exit code, if there is one, to the standard output."""
    if isinstance(code, Result) and code.value is not None and processes.is_reporting_rank():
        if not isinstance(code.value, Path):
            echo(json.dumps(code.value, default=str))
        elif code.value.is_file():  # scores of an evaluation that has some
            echo(code.value.read_text().rstrip())


def run_and_exit(function: str) -> NoReturn:
    """Be the program of a command, see `run_function`, and exit with its code."""
    sys.exit(run_function(function))


def run_function(function: str, *arguments: Any) -> int:
    """Import and call a command, "module:name"; return its exit code.

    What is not installed, or a Ctrl-C while modules are imported, is one line.
    """
    if "PYTORCH_CUDA_ALLOC_CONF" not in os.environ:  # sizes that change leave fewer gaps
        os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    with exit_on_error(program_name(Path(sys.argv[0]).name)):
        code: int | None = lazy_import(function)(*arguments)
        return 0 if code is None else code


def lazy_import(name: str) -> Callable[..., Any]:
    """Make a function that imports the one it stands for when it is called.

    Args:
        name: `module:function` or `module:Class.method`; the module may import torch.
    """

    def call(*arguments: Any, **options: Any) -> Any:
        module, _, function = name.partition(":")
        return attrgetter(function)(importlib.import_module(module))(*arguments, **options)

    return call


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
    paths = [path for path in outputs if path is not None]
    for index, path in enumerate(paths):
        wrong = [
            f"is the {role}"
            for role, source in inputs.items()
            if source and _is_same_file(path, source)
        ]
        wrong += [
            "is another output too" for later in paths[index + 1 :] if _is_same_file(path, later)
        ]
        wrong += [] if path.parent.is_dir() else ["is in a folder that is not there"]
        if wrong:
            raise ValueError(f"{path} {wrong[0]}: name another file")
    require_free(paths, overwrite=overwrite)
    for folder in dict.fromkeys(path.parent for path in paths):
        make_folder(folder)  # it is there; fails now, not after hours


def _is_same_file(path: Path, other: Path) -> bool:
    """Test whether two names lead to one file, by a hard link too."""
    both_exist = path.exists() and other.exists()
    return path.samefile(other) if both_exist else path.resolve() == other.resolve()


def require_data(location: str, *, name: str, forms: str = "") -> None:
    """Refuse a place of data, named by an option or setting, where nothing is.

    It is a path, a pattern such as `shards/{0000..0099}.tar`, a list with a part such as
    `captions.json#train`, or the name of a public dataset, which is not looked for; `forms` says
    what it may be.

    Raises:
        ValueError: If nothing is there, with the command that makes it where it is demo data.
    """
    if location.startswith(_DATASET_PREFIXES):
        return
    parts = expand_home(location).parts
    fixed = takewhile(lambda part: not any(sign in part for sign in "{*?["), parts)
    path_before_pattern = Path(*fixed)
    if path_before_pattern.exists() or Path(str(path_before_pattern).partition("#")[0]).exists():
        return
    advice = f"name {forms}"
    folder = demo_folder(location)
    if folder:
        program, more = "tools/make_demo_data.py", DEMO_DATA[folder.name]
        command = command_to_run("data make-demo", program, "--output", folder, *more)
        advice = f"this makes it: {command}"
    raise ValueError(f"{name}: there is no {path_before_pattern}; {advice}")


def demo_folder(location: str) -> Path | None:
    """Find the folder of demo data that a path or pattern lies in; None if there is none."""
    path = expand_home(location)
    return next(
        (parent for parent in (*reversed(path.parents), path) if parent.name in DEMO_DATA), None
    )
