"""What this toolkit asks `huggingface_hub` for, and its errors as one sentence each.

The library is imported when something is fetched, and not before.
"""

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from eva_backbone.checkpoints.hub.addresses import HubFile
from eva_backbone.checkpoints.hub.reachable import patience, why_unreachable

NO_DOWNLOAD = "EVA_NO_DOWNLOAD"
INSTALL = "pip install eva-toolkit[hub]"
LOOK_UP_SECONDS = 10  # without an answer until then, the hub counts as not reachable

_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_ON = ("1", "ON", "YES", "TRUE")  # as huggingface_hub reads its variables
_OFF = ("", "0", "OFF", "NO", "FALSE")
_BUSY = (408, 429, 500, 502, 503, 504)
_SHA256 = re.compile("[0-9a-f]{64}")


class HubError(OSError):
    """A file that the hub does not give; the message says why, and names no file."""


class UnreachableError(HubError):
    """No answer from the hub."""


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """What the hub says about a file.

    Attributes:
        commit: The commit that its revision is.
        url: Address of its content.
        size: Bytes; None if the hub does not say.
        sha256: SHA-256 of its content; None for small files, which git holds.
        headers: Headers of a request for its content.
    """

    commit: str
    url: str
    size: int | None
    sha256: str | None
    headers: dict[str, str]


def refusal() -> str:
    """Return why nothing may be downloaded, by the variables of the environment, or ""."""
    if os.environ.get(NO_DOWNLOAD, "").upper() not in _OFF:
        return f"downloads are switched off (--no-download or {NO_DOWNLOAD})"
    reason = offline()
    return f"downloads are switched off ({reason})" if reason else ""


def offline() -> str:
    """Return what forbids all traffic with the hub, uploads too, or ""."""
    for name in _OFFLINE:
        if os.environ.get(name, "").upper() in _ON:
            return f"{name}={os.environ[name]}"
    constants = sys.modules.get("huggingface_hub.constants")
    return "huggingface_hub is offline" if getattr(constants, "HF_HUB_OFFLINE", False) else ""


@contextlib.contextmanager
def obedient() -> Iterator[str]:
    """Let other libraries fetch through `huggingface_hub` only if this toolkit may and can.

    Yields:
        The reason if nothing may or can be downloaded, or ""; the library is then offline.
    """
    reason = refusal() or _unreachable()
    if not reason:
        yield ""
        return
    constants = library().constants
    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield reason
    finally:
        constants.HF_HUB_OFFLINE = before


def library() -> Any:
    """Import `huggingface_hub`.

    Raises:
        HubError: If it is not installed.
    """
    try:
        import huggingface_hub
        import huggingface_hub.errors
        import huggingface_hub.file_download
    except ImportError as error:
        raise HubError(f"to download it, huggingface_hub is needed ({error}): {INSTALL}") from error
    return huggingface_hub


@contextlib.contextmanager
def explained(file: HubFile) -> Iterator[None]:
    """Turn errors of the library into one sentence.

    Args:
        file: The file that is asked for.

    Yields:
        Nothing.

    Raises:
        HubError: In place of errors of network, hub and disk.
    """
    hub = library()
    errors = hub.errors
    (transport,) = (base for base in errors.HfHubHTTPError.__bases__ if base is not OSError)
    place = f"{hub.constants.ENDPOINT}/{file.repository}"
    log_in = "log in with `hf auth login` or set HF_TOKEN"
    try:
        yield
    except HubError:
        raise
    except errors.GatedRepoError as error:
        raise HubError(
            f"{place} asks for consent first: accept its conditions there, then {log_in}"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise HubError(
            f"the hub has no repository {file.repository}, or it is private: check the name, or "
            f"{log_in}"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise HubError(f"{place} has no revision {file.revision}") from error
    except errors.RemoteEntryNotFoundError as error:
        raise HubError(f"{place} has no file {file.file} in revision {file.revision}") from error
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status in (401, 403):
            raise HubError(f"{place} refuses access ({status}): {log_in}") from error
        later = status in _BUSY
        advice = "try again later" if later else "a proxy, or HF_ENDPOINT, may be wrong"
        raise UnreachableError(f"{place} answers with {status}: {advice}") from error
    except (transport, OSError) as error:
        lines = str(error.__cause__ or error).splitlines() or [type(error).__name__]
        if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
            raise HubError(f"{error.filename}: {error.strerror}") from error
        raise UnreachableError(
            f"{hub.constants.ENDPOINT} cannot be reached or broke off ({lines[0][:200]})"
        ) from error


def require_reachable() -> None:
    """Find out within two seconds that there is no network; the library tries for much longer.

    Raises:
        UnreachableError: If no connection to the hub, or to its proxy, comes about.
    """
    if reason := _unreachable():
        raise UnreachableError(reason)


def _unreachable() -> str:
    endpoint = library().constants.ENDPOINT
    reason = why_unreachable(endpoint)
    return f"{endpoint} cannot be reached ({reason})" if reason else ""


def look_up(file: HubFile) -> RemoteFile:
    """Ask the hub about a file, once and without waiting long.

    Args:
        file: The file.

    Returns:
        What the hub says.

    Raises:
        HubError: If there is no such file, no access, or no answer.
    """
    hub = library()
    require_reachable()
    headers = hub.utils.build_hf_headers(library_name="eva-toolkit")
    with explained(file):
        url = hub.hf_hub_url(file.repository, file.file, revision=file.revision)
        seconds = max(LOOK_UP_SECONDS, patience())
        found = hub.get_hf_file_metadata(url, timeout=seconds, headers=dict(headers))
        if not found.commit_hash:
            raise UnreachableError(
                f"{hub.constants.ENDPOINT} does not answer as the hub does (no commit for {url}): "
                "a proxy, or HF_ENDPOINT, may be wrong"
            )
        return RemoteFile(
            commit=found.commit_hash,
            url=hub.hf_hub_url(file.repository, file.file, revision=found.commit_hash),
            size=found.size,
            sha256=found.etag if _SHA256.fullmatch(found.etag or "") else None,
            headers=dict(headers),
        )
