"""Addresses of files on the hub: `hf://ORG/REPOSITORY/FILE@REVISION`.

`FILE` may lie in folders. Without a revision it is that of `main`; without a file it is
`model.safetensors`, which `eva push` writes. `hf://ORG/REPOSITORY@REVISION/FILE`, as
`huggingface_hub` writes it, is the same.
"""

import re
from dataclasses import dataclass

SCHEME = "hf://"
DEFAULT_FILE = "model.safetensors"
DEFAULT_REVISION = "main"
SUFFIXES = (".pt", ".pth", ".safetensors")
FORM = f"{SCHEME}ORG/REPOSITORY/FILE@REVISION"

_START = re.compile("hf:/{1,2}(?!/)")  # with one slash it has been a pathlib.Path
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_FOLDERS = re.compile(r"[^\\\x00-\x1f?#%@]+")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/-]*")
_LEADING = re.compile(r"(refs/[^/]+/[^/]+|[^/]+)/?(.*)", re.DOTALL)  # revision, then file
_OTHER_KINDS = ("models", "datasets", "spaces", "kernels", "buckets")


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


def is_address(text: str) -> bool:
    """Return whether a source names a file of the hub; `Path` may have taken one of its slashes."""
    return _START.match(text) is not None


def parse_address(text: str) -> HubFile:
    """Read an address.

    Args:
        text: As in `FORM`; see this module.

    Returns:
        The file that it names.

    Raises:
        ValueError: If it is not of this form, or leads out of its repository.
    """
    place, _, revision = _START.sub("", text).partition("@")
    organisation, _, rest = place.partition("/")
    repository, _, file = rest.partition("/")
    if revision and not file:  # ORG/REPOSITORY@REVISION/FILE
        found = _LEADING.fullmatch(revision)
        revision, file = found.groups() if found else (revision, "")
    file, revision = file or DEFAULT_FILE, revision or DEFAULT_REVISION
    if organisation in _OTHER_KINDS:
        raise _refused(text, f"weights are in repositories of models, not below {organisation}/")
    for name, part in (("ORG", organisation), ("REPOSITORY", repository)):
        if not _PART.fullmatch(part) or "--" in part or ".." in part:
            raise _refused(text, f"{part!r} cannot be its {name}")
    if not _FOLDERS.fullmatch(file) or any(part in ("", ".", "..") for part in file.split("/")):
        raise _refused(text, f"{file!r} is not a path in a repository")
    if not _REVISION.fullmatch(revision) or ".." in revision:
        raise _refused(text, f"{revision!r} cannot be a revision")
    if not file.endswith(SUFFIXES):
        raise _refused(text, f"{file!r} does not end in one of {', '.join(SUFFIXES)}")
    return HubFile(f"{organisation}/{repository}", file, revision)


def _refused(text: str, reason: str) -> ValueError:
    return ValueError(f"{text!r} is not an address of weights on the hub: {reason}; write {FORM}")
