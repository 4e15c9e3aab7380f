"""Weights on the command line of an evaluation or a demo: a word of its own, or `--weights`."""

from eva_runs.command_line.slips import SlipError

WEIGHTS = (
    "folder of a run, path of a file, name of an official one (`eva weights list`), or "
    "hf://ORG/REPOSITORY/FILE"
)
MISSING = "name the weights, as a word of its own or with --weights: the folder of a run, a file"


def one_source(word: str | None, named: str | None) -> str | None:
    """Return the weights of a command line, which are given once.

    Args:
        word: Weights that stand alone, or None.
        named: Weights behind `--weights`, or None.

    Raises:
        SlipError: If both are given.
    """
    if word and named:
        raise SlipError(
            f"two weights are given, {word} and --weights {named}: leave one of them out"
        )
    return word or named or None
