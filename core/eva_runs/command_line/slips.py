"""Names that a misspelt or foreign one may mean: flags, settings, recipes."""

import difflib
from collections.abc import Collection, Iterable

from eva_data.files import printable
from eva_runs.commands import ended

EXIT_SLIP = 2
_ALIKE = 0.6  # likeness of two names, of `difflib`
_SAME_WORD, _SAME_NAME = 0.8, 0.85
_NEAR_THE_BEST = 0.1
_MEANINGS = (  # words of one meaning, here and in other programs
    ("weights", "checkpoint", "ckpt", "pretrained", "init_checkpoint", "load_from", "init_from"),
    ("output", "output_dir", "out", "out_dir", "work_dir", "save_dir", "project", "outdir"),
    ("lr", "learning_rate", "base_lr", "lr0"),
    ("batch_size", "batch", "total_batch_size", "samples_per_gpu", "ims_per_batch", "bs"),
    (
        *("epochs", "epoch", "num_epochs", "max_epochs", "max_iter", "max_iters"),
        *("iters", "iterations", "steps", "max_steps"),
    ),
    ("workers", "num_workers"),
    ("image_size", "img_size", "imgsz", "input_size", "resolution"),
    ("drop_path_rate", "drop_path", "droppath"),
    ("train", "data", "dataset", "data_root", "data_dir", "data_path", "train_images"),
    ("score_threshold", "conf", "threshold", "score_thr", "confidence"),
    ("overwrite", "force", "exist_ok"),
    ("weight_decay", "wd"),
    ("seed", "random_seed"),
    ("config_file", "config", "cfg", "recipe"),
    ("num_gpus", "gpus", "num_gpu"),
)


class SlipError(ValueError):
    """A word of a command line that names nothing; a program ends with exit code 2."""


def closest(name: str, known: Iterable[str], *, most: int = 3) -> list[str]:
    """Find the names that a wrong one may mean.

    Dashes, underscores, capitals and the part before the last dot may differ, another program may
    call it otherwise (`batch` is `run.batch_size`), and letters may be wrong.

    Args:
        name: The wrong name.
        known: Names that exist.
        most: Number of names at most.

    Returns:
        Names that exist, the likeliest first.
    """
    names = {one: _plain(one) for one in known}
    text = _plain(name)
    last = _last(text)
    words = [*_other_words(last)]
    found = [one for one, plain in names.items() if plain == text]
    found += _alike(text, names, least=_SAME_NAME) if "." in text else []
    found += [one for one, plain in names.items() if _last(plain) == last]
    found += [one for one, plain in names.items() if _last(plain) in words]
    if not found:
        found = _alike(text, names) or _alike(last, {one: _last(of) for one, of in names.items()})
    return list(dict.fromkeys(found))[:most]


def hint(name: str, known: Iterable[str], *, otherwise: str = "") -> str:
    """Write the end of a sentence on a name that does not exist.

    Args:
        name: The wrong name.
        known: Names that exist.
        otherwise: Text where none of them is close.

    Returns:
        `; close to it: A, B`, or `otherwise`.
    """
    close = closest(name, known)
    return f"; close to it: {', '.join(close)}" if close else otherwise


def end_program(program: str, error: Exception) -> SystemExit:
    """Make the end of a program after an error that the user can fix.

    Args:
        program: Name in the message.
        error: The error; its text becomes one line.

    Returns:
        What to raise: the sentence as the exit code, which Python prints before it exits with 1;
        or, after a `SlipError`, whose sentence is printed here, code 2.
    """
    sentence = printable(f"{program}: {' '.join(str(error).split())}")
    return ended(sentence, EXIT_SLIP) if isinstance(error, SlipError) else SystemExit(sentence)


def _plain(name: str) -> str:
    return name.lstrip("-").partition("=")[0].replace("-", "_").lower()


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _other_words(word: str) -> Collection[str]:
    """List the words of the meaning of a word, which may be misspelt itself."""
    every = [one for words in _MEANINGS for one in words]
    meant = [word] if word in every else difflib.get_close_matches(word, every, 1, _SAME_WORD)
    return [one for words in _MEANINGS if {*meant} & {*words} for one in words]


def _alike(text: str, names: dict[str, str], *, least: float = _ALIKE) -> list[str]:
    likeness = {
        one: difflib.SequenceMatcher(None, text, plain).ratio() for one, plain in names.items()
    }
    least = max([least, *(value - _NEAR_THE_BEST for value in likeness.values())])
    near = [one for one, value in likeness.items() if value >= least]
    return sorted(near, key=lambda one: -likeness[one])
