"""Files of the Hugging Face hub, fetched by `huggingface_hub`.

An address is `hf://ORG/REPOSITORY/FILE@REVISION`. `FILE` may lie in folders. Without a revision it
is that of `main`; without a file it is `model.safetensors`, which `eva push` writes.
`hf://ORG/REPOSITORY@REVISION/FILE`, as `huggingface_hub` writes it, is the same. The library is
imported when something is fetched; downloads, cache, locks and continuation are its own.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCHEME = "hf://"
DEFAULT_FILE = "model.safetensors"
DEFAULT_REVISION = "main"
SUFFIXES = (".pt", ".pth", ".safetensors")
FORM = f"{SCHEME}ORG/REPOSITORY/FILE@REVISION"
NO_DOWNLOAD = "EVA_NO_DOWNLOAD"

_SWITCHES = (NO_DOWNLOAD, "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_OFF = ("", "0", "OFF", "NO", "FALSE")
_SECONDS = 10  # for the first answer of the hub
_MOMENTS = 4  # the same, where another way is open
_ADDRESS = re.compile(
    r"hf:/{1,2}(?P<repository>[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*)"  # Path drops a slash
    r"(?:/(?P<file>[^@]+?))?(?:@(?P<revision>(?:refs/[^/]+/)?[\w.-]+)(?:/(?P<file_behind>.+))?)?/?"
)


class HubError(OSError):
    """A file that the hub does not give; the message says why."""


@dataclass(frozen=True)
class HubFile:
    """A file of a model repository on the hub.

    Attributes:
        repository: `ORG/REPOSITORY`.
        file: Path in the repository, with `/`.
        revision: Branch, tag or commit.
    """

    repository: str
    file: str = DEFAULT_FILE
    revision: str = DEFAULT_REVISION

    def __str__(self) -> str:
        pinned = "" if self.revision == DEFAULT_REVISION else f"@{self.revision}"
        return f"{SCHEME}{self.repository}/{self.file}{pinned}"


def is_address(address: str) -> bool:
    """Return whether a source names a file of the hub; `Path` may have taken one of its slashes."""
    return re.match("hf:/{1,2}(?!/)", address) is not None


def parse_address(address: str) -> HubFile:
    """Read an address of the form `FORM`; see this module.

    Raises:
        ValueError: If it is not of this form, or leads out of its repository.
    """
    match = _ADDRESS.fullmatch(address)
    file = (match["file"] or match["file_behind"] or DEFAULT_FILE) if match else ""
    is_inside = not any(part in ("", ".", "..") for part in file.split("/"))
    plain = re.fullmatch(r"[^\\\x00-\x1f?#%]+", file) and "@.." not in address
    if not match or not is_inside or not plain or not file.endswith(SUFFIXES):
        raise ValueError(
            f"{address!r} is not an address of weights on the hub: write {FORM}, with a file that "
            f"ends in one of {', '.join(SUFFIXES)}"
        )
    return HubFile(match["repository"], file, match["revision"] or DEFAULT_REVISION)


def offline() -> str:
    """Return what forbids all traffic with the hub, uploads too, or ""."""
    return next((switch for switch in _SWITCHES[1:] if _is_on(switch)), "")


def _is_on(name: str) -> bool:
    return os.environ.get(name, "").upper() not in _OFF


def why_offline() -> str:
    """Return why nothing may be downloaded, by the variables of the environment, or ""."""
    name = NO_DOWNLOAD if _is_on(NO_DOWNLOAD) else offline()
    return f"downloads are switched off ({name}={os.environ[name]})" if name else ""


def import_hub() -> Any:
    """Import `huggingface_hub`.

    Raises:
        HubError: If it is not installed.
    """
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise HubError(
            f"huggingface_hub is not installed ({error}): pip install 'eva-toolkit[hub]'"
        ) from error
    return huggingface_hub


@contextlib.contextmanager
def respect_offline_mode() -> Iterator[str]:
    """Let other libraries fetch through `huggingface_hub` only if this toolkit may.

    Yields:
        The reason if nothing may be downloaded, or ""; the library is then offline.
    """
    reason, constants = why_offline(), import_hub().constants
    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, bool(reason)
    try:
        yield reason
    finally:
        constants.HF_HUB_OFFLINE = before


def fetch(file: HubFile, folder: Path | None = None) -> Path:
    """Return a file of the hub, downloaded if it is not on this machine.

    Args:
        file: The file.
        folder: Folder that receives it; None for the cache of `huggingface_hub`, which other
            programs share, and of which a copy is taken where the hub gives no answer.

    Raises:
        HubError: If it cannot be had.
    """
    hub = import_hub()
    options: dict[str, Any] = {"revision": file.revision, "local_dir": folder}
    reason = why_offline()
    if reason:
        options["local_files_only"] = True
    with explain_hub_errors(file, reason):
        return Path(
            hub.hf_hub_download(
                file.repository,
                file.file,
                library_name="eva-toolkit",
                etag_timeout=_SECONDS,
                **options,
            )
        )


def find_cached(file: HubFile) -> Path | None:
    """Find a file of the hub in the cache; nothing is asked."""
    path = import_hub().try_to_load_from_cache(file.repository, file.file, revision=file.revision)
    return Path(path) if isinstance(path, str) else None


def look_up(file: HubFile) -> int:
    """Ask the hub for the size of a file in bytes, once: without a network that takes moments.

    Raises:
        HubError: If there is no such file, no answer, or no download allowed.
    """
    reason, hub = why_offline(), import_hub()
    if reason:
        raise HubError(f"{file.repository}: {reason}")
    url = hub.hf_hub_url(file.repository, file.file, revision=file.revision)
    with explain_hub_errors(file):
        return hub.get_hf_file_metadata(url, timeout=_MOMENTS).size or 0


def _hosted_too(file: HubFile) -> str:
    """Say who else has the weights of a repository whose owner grants access one by one."""
    gated = file.repository.startswith("facebook/dinov3")
    return "; timm hosts the same weights, by the names of `eva weights list`" if gated else ""


@contextlib.contextmanager
def explain_hub_errors(file: HubFile, reason: str = "") -> Iterator[None]:
    """Turn errors of network, hub and disk into a HubError of one line.

    Args:
        file: The file that is asked for.
        reason: Why nothing may be downloaded.
    """
    hub = import_hub()
    errors = hub.errors
    (transport,) = (base for base in errors.HfHubHTTPError.__bases__ if base is not OSError)
    log_in = "log in with `hf auth login` or set HF_TOKEN"
    try:
        yield
    except (transport, OSError) as error:
        message = str(error).strip().partition("\n")[0][:300] or type(error).__name__
        if isinstance(error, errors.GatedRepoError):
            message = f"it asks for consent: give it there, then {log_in}{_hosted_too(file)}"
        elif isinstance(error, errors.LocalEntryNotFoundError):
            message = reason or f"{hub.constants.ENDPOINT} cannot be reached"
        elif isinstance(error, errors.RepositoryNotFoundError):
            message = f"the hub has no such repository, or it is private: {log_in}"
        raise HubError(f"{file.repository}: {message}") from error
