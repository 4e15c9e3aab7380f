"""Names of settings, and the sentence for one that nothing reads; nothing heavy is imported."""

from collections.abc import Collection, Iterable

from eva_data.command_line.slips import SlipError, hint
from eva_detection.config.words import USUAL_SETTINGS

# Sections whose names are read one by one, and names in them that a config may leave out.
_FLAT = ("train", "dataloader", "test")
_DEEPER = (["train", "amp"], ["test", "aug"])
OPTIONAL_SETTINGS = (
    "train.accumulate",
    "train.amp.precision",
    "train.cudnn_benchmark",
    "train.max_bad_images",
    "train.progress_bar",
    "train.seed",
    "dataloader.evaluator",
)


def check_names(
    known: Collection[str], overrides: Iterable[str], *, of: Iterable[str] = ()
) -> None:
    """Refuse overrides that nothing reads.

    Args:
        known: Names of sections, and of what is in those that are read name by name.
        overrides: `key=value` strings of the command line.
        of: Names of which everything below is accepted.

    Raises:
        SlipError: For an unknown key, with the closest known ones.
    """
    accepted = {*of}
    for override in overrides:
        key = override.partition("=")[0].lstrip("+~")
        parts = key.split(".")
        read = 3 if parts[:2] in _DEEPER else 2 if parts[0] in _FLAT else 1
        name = ".".join(parts[:read])
        above = {".".join(parts[:count]) for count in range(1, read + 1)}
        if name not in known and not above & accepted:
            usual = [one.partition("=")[0] for one in USUAL_SETTINGS]
            names = ", ".join(sorted(known))
            raise SlipError(
                f"unknown setting {key!r}: nothing reads it"
                + hint(key, dict.fromkeys([*known, *usual]), otherwise=f"; known: {names}")
            )
