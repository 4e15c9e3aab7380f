"""A folder as a commit of a repository on the hub."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eva_backbone.checkpoints.hub import (
    HubError,
    HubFile,
    explained,
    library,
    offline,
)

_LOG_IN = "log in with `hf auth login`, or set HF_TOKEN to a token that may write"


def upload(
    folder: Path, repository: str, *, private: bool, message: str, replaced: Sequence[str] = ()
) -> str:
    """Upload a folder; the repository is made if it is not there.

    Args:
        folder: The folder; all of its files are uploaded.
        repository: `ORG/NAME`.
        private: Make the repository private.
        message: First line of the commit.
        replaced: Names of files that the commit removes, if they are there and not in the folder.

    Returns:
        The commit.

    Raises:
        HubError: Without a token that may write there, or without the hub.
        ValueError: If `private` is asked for and the repository is there and public.
    """
    hub = library()
    reason = offline()
    if reason:
        raise HubError(f"the hub is switched off ({reason})")
    if not hub.get_token():
        raise HubError(f"to upload, {_LOG_IN}")
    api = hub.HfApi(library_name="eva-toolkit")
    with explained(HubFile(repository)):
        _check_token(api, hub)
        _check_visibility(api, hub, repository, private=private)
        api.create_repo(repository, private=private or None, exist_ok=True)
        try:
            done = api.upload_folder(
                folder_path=os.fspath(folder),
                repo_id=repository,
                commit_message=message,
                delete_patterns=list(replaced) or None,
            )
        except RuntimeError as error:  # around what broke off, of each large file
            lines = str(error.__cause__ or error).splitlines()
            raise HubError(f"the upload broke off, nothing was published ({lines[0]})") from error
    return str(done.oid)


def _check_token(api: Any, hub: Any) -> None:
    try:
        api.whoami()
    except hub.errors.HfHubHTTPError as error:
        if error.response.status_code not in (401, 403):
            raise
        raise HubError(f"the hub does not take the token at hand: {_LOG_IN}") from error
    except hub.errors.LocalTokenNotFoundError as error:
        raise HubError(f"to upload, {_LOG_IN}") from error


def _check_visibility(api: Any, hub: Any, repository: str, *, private: bool) -> None:
    try:
        found = api.model_info(repository)
    except hub.errors.RepositoryNotFoundError:
        return
    if private and not found.private:
        raise ValueError(
            f"{repository} is there and public: make it private on the hub first, or name another "
            "repository"
        )
