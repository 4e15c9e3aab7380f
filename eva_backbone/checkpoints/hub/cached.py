"""Files of any repository, in the cache of `huggingface_hub` that all programs share."""

import logging
import re
import shutil
from pathlib import Path

from eva_backbone.checkpoints.hub.addresses import HubFile
from eva_backbone.checkpoints.hub.client import (
    HubError,
    RemoteFile,
    UnreachableError,
    explained,
    library,
    look_up,
    refusal,
)
from eva_backbone.checkpoints.verification import remember_verified, sha256_of

logger = logging.getLogger(__name__)

_COMMIT = re.compile("[0-9a-f]{40}")


def fetch_cached(file: HubFile) -> Path:
    """Return the copy of a file in the cache; download it if there is none.

    A branch or tag is looked up each time; without an answer from the hub, its last copy is taken.

    Args:
        file: The file on the hub.

    Returns:
        The file; the name is that on the hub.

    Raises:
        HubError: If it is not in the cache and cannot be had.
    """
    copy = _copy(file)
    if copy is not None and _COMMIT.fullmatch(file.revision):
        return copy
    reason = refusal()
    if not reason:
        try:
            return _fetch(file, look_up(file))
        except UnreachableError as error:
            if copy is None:
                raise
            reason = str(error)
    if copy is None:
        raise HubError(f"it is not in {library().constants.HF_HUB_CACHE}, and {reason}")
    logger.warning("%s: taking the copy of commit %s (%s)", file, _commit_of(copy, file), reason)
    return copy


def _copy(file: HubFile) -> Path | None:
    found = library().try_to_load_from_cache(file.repository, file.file, revision=file.revision)
    return Path(found) if isinstance(found, str) and Path(found).is_file() else None


def _commit_of(copy: Path, file: HubFile) -> str:
    return copy.parts[-1 - len(file.file.split("/"))]


def _fetch(file: HubFile, remote: RemoteFile) -> Path:
    hub = library()
    known = _copy(HubFile(file.repository, file.file, remote.commit)) is not None
    if not known and remote.size is not None:
        _require_room(remote.size, Path(hub.constants.HF_HUB_CACHE))
    with explained(file):
        copy = Path(
            hub.hf_hub_download(
                file.repository,
                file.file,
                revision=remote.commit,  # a branch may move meanwhile
                library_name="eva-toolkit",
                etag_timeout=10,
            )
        )
    logger.info("%s is commit %s: %s", file, _commit_of(copy, file), copy)
    if remote.sha256 and not known:
        content = copy.resolve()
        found = sha256_of(content)
        if found != remote.sha256:
            copy.unlink()
            content.unlink(missing_ok=True)
            raise HubError(
                f"what came has SHA-256 {found}, the hub says {remote.sha256}: it was removed"
            )
        remember_verified(content, found)
    with explained(file):
        _note_revision(copy, file, remote.commit)
    return copy


def _note_revision(copy: Path, file: HubFile, commit: str) -> None:
    """Write what a branch or tag is, where the library looks it up without the hub."""
    if file.revision == commit:
        return
    storage = copy.parents[len(file.file.split("/")) + 1]  # STORAGE/snapshots/COMMIT/FILE
    note = storage / "refs" / file.revision
    if not note.is_file() or note.read_text(encoding="utf-8") != commit:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(commit, encoding="utf-8")


def _require_room(size: int, cache: Path) -> None:
    place = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    if size > free:
        raise HubError(
            f"it needs {size / 1e9:.2f} GB in {cache}, where {free / 1e9:.2f} GB are free: make "
            "room, or let HF_HUB_CACHE name another folder"
        )
