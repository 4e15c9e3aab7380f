"""Files of any repository, in the cache of `huggingface_hub` that all programs share."""

import logging
import os
import re
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
from eva_backbone.checkpoints.hub.locks import make_shared, one_at_a_time
from eva_backbone.checkpoints.hub.transfers import Place, flush, place_of_own, receive
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
    by_http = (remote.size or 0) <= hub.constants.MAX_HTTP_DOWNLOAD_SIZE
    if not known and remote.sha256 and by_http:
        known = _receive(file, remote, remote.sha256)
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


def _receive(file: HubFile, remote: RemoteFile, sha256: str) -> bool:
    """Bring the content to where the library looks for it, which itself begins again at each start.

    Returns:
        Whether it came now, and is verified.
    """
    cache = Path(library().constants.HF_HUB_CACHE)
    name = library().file_download.repo_folder_name(repo_id=file.repository, repo_type="model")
    content = cache / name / "blobs" / sha256
    part = content.with_name(f"{sha256}.incomplete")
    lock = cache / ".locks" / name / f"{sha256}.eva.lock"
    try:
        make_shared(content.parent)
        make_shared(lock.parent)
        with one_at_a_time(lock, what=str(file)):
            if content.is_file():
                return False
            place = Place(part=place_of_own(part), folder=cache, variable="HF_HUB_CACHE")
            receive(file, remote, place, sha256=sha256)
            os.replace(place.part, content)
            flush(content.parent)
            remember_verified(content, sha256)
            return True
    except HubError:
        raise
    except OSError as error:
        where = "" if error.filename is None else f", because of {error.filename}"
        raise HubError(
            f"{cache} cannot take it ({error.strerror or error}){where}: let HF_HUB_CACHE name a "
            "folder that you can write in"
        ) from error


def _note_revision(copy: Path, file: HubFile, commit: str) -> None:
    """Write what a branch or tag is, where the library looks it up without the hub."""
    if file.revision == commit:
        return
    storage = copy.parents[len(file.file.split("/")) + 1]  # STORAGE/snapshots/COMMIT/FILE
    note = storage / "refs" / file.revision
    if not note.is_file() or note.read_text(encoding="utf-8") != commit:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(commit, encoding="utf-8")
