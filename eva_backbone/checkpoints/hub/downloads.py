"""Files with a recorded SHA-256, fetched into a folder: complete and correct, or not there."""

import logging
import os
from pathlib import Path

from eva_backbone.checkpoints.hub.addresses import HubFile
from eva_backbone.checkpoints.hub.client import HubError, library, look_up
from eva_backbone.checkpoints.hub.locks import make_shared, one_at_a_time
from eva_backbone.checkpoints.hub.transfers import Place, flush, place_of_own, receive
from eva_backbone.checkpoints.verification import remember_verified

logger = logging.getLogger(__name__)

UNFINISHED = ".downloads"  # in the folder of the files: locks, and what has come so far


def download(file: HubFile, *, sha256: str, folder: Path) -> Path:
    """Fetch a file, or wait for the process that does.

    An interrupted download continues where it was, also after the end of its process.

    Args:
        file: The file on the hub.
        sha256: SHA-256 of its content.
        folder: Folder that receives it, under its name; it is made if it is not there.

    Returns:
        The file.

    Raises:
        HubError: If it cannot be had, or is another one; nothing of its name is then in the folder.
    """
    library()  # first: without it no folder is made
    target, unfinished = folder / Path(file.file).name, folder / UNFINISHED
    if target.is_symlink():
        raise HubError(f"{target} is a link to {target.readlink()}, which is not there")
    if target.exists():
        raise HubError(f"{target} is in its place and not a file")
    try:
        make_shared(unfinished)
        with one_at_a_time(unfinished / f"{target.name}.lock", what=target.name):
            if not target.is_file():  # nobody has fetched it while this process waited
                part = place_of_own(unfinished / f"{target.name}.part")
                _fetch(file, sha256, part, target)
    except HubError:
        raise
    except OSError as error:
        where = "" if error.filename in (None, str(folder)) else f", because of {error.filename}"
        raise HubError(
            f"{folder} cannot take it ({error.strerror or error}){where}: let EVA_WEIGHTS name a "
            "folder that you can write in"
        ) from error
    return target


def _fetch(file: HubFile, sha256: str, part: Path, target: Path) -> None:
    remote = look_up(file)
    if remote.sha256 not in (None, sha256):
        raise HubError(
            f"{file} is another file than the one recorded here: the hub says SHA-256 "
            f"{remote.sha256}, recorded is {sha256}"
        )
    size = "" if remote.size is None else f" ({remote.size / 1e9:.2f} GB)"
    # a warning: gigabytes that nobody may have expected, where no progress bar is seen
    logger.warning("downloading %s%s, commit %s, to %s", file, size, remote.commit, target)
    place = Place(part=part, folder=target.parent, variable="EVA_WEIGHTS")
    receive(file, remote, place, sha256=sha256)
    os.replace(part, target)
    flush(target.parent)
    remember_verified(target, sha256)
