"""The one place that turns a name, a path or an address into the path of an existing file.

Names are those of the official EVA-01 release and of what is bundled. An official file that is not
on this machine is downloaded once, unless that is switched off: `--no-download`,
`EVA_NO_DOWNLOAD=1` or `HF_HUB_OFFLINE=1`. An address is `hf://ORG/REPOSITORY/FILE@REVISION`, a file
of any repository of models on the hub.

`official_files.csv` has a row for each official file. Results are the authors' (paper,
https://arxiv.org/abs/2211.07636, or the official READMEs and logs), never ours. Of `size_gb`,
integers are the READMEs' rounded figures; decimals and `sha256` are as the hub lists them.

`hosted_files.csv` has the weights of other plain ViTs, as timm hosts them on the hub under their
own licences; sizes are those of the parameters in float32. They have no recorded SHA-256.
"""

import csv
import difflib
import logging
import os
import re
import shlex
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from eva_backbone.checkpoints.hub import (
    DEFAULT_FILE,
    DEFAULT_REVISION,
    FORM,
    SUFFIXES,
    HubError,
    HubFile,
    fetch,
    is_address,
    parse_address,
)
from eva_backbone.checkpoints.run_folders import describe_missing, weights_of_run
from eva_backbone.checkpoints.verification import (
    require_regular_file,
    verify_once,
    verify_sha256 as verify_sha256,
)
from eva_backbone.variants import FAMILIES, VARIANTS

logger = logging.getLogger(__name__)

REPOSITORY = "BAAI/EVA"  # of all official files; MIT
TASKS = ("pretrain", "classification", "clip", "detection", "segmentation", "video")
WEIGHTS_VARIABLE = "EVA_WEIGHTS"
DEFAULT_WEIGHTS_DIRECTORY = "~/.cache/eva"
CHECKPOINT_SUFFIXES = SUFFIXES
SHARDS = ".safetensors.index.json"  # end of the name of an index of several files


@dataclass(frozen=True, kw_only=True)
class OfficialFile:
    """One file of the official release.

    `variant` names a row of `eva_backbone.variants`; `resolution` is the training input in pixels
    (for a two-phase training, the last phase). An unknown result is empty.
    """

    name: str
    task: str
    variant: str
    resolution: int
    size_gb: float
    result: str
    sha256: str

    @property
    def stem(self) -> str:
        """The file name without its suffix; it is accepted wherever the name is."""
        return Path(self.name).stem


_TABLE = Path(__file__).with_name("official_files.csv").read_text(encoding="utf-8")
OFFICIAL_FILES = tuple(
    OfficialFile(resolution=int(row.pop("resolution")), size_gb=float(row.pop("size_gb")), **row)
    for row in csv.DictReader(_TABLE.splitlines())
)
SHA256 = {entry.name: entry.sha256 for entry in OFFICIAL_FILES}
# For tests and the quick start: name -> file in the package.
BUNDLED_FILES = {"eva_debug": "weights/eva_debug.safetensors"}


@dataclass(frozen=True, kw_only=True)
class HostedFile:
    """Weights of another plain ViT on the hub; `name` begins with a key of `VARIANTS`."""

    name: str
    repository: str
    size_gb: float

    @property
    def variant(self) -> str:
        """Key of `VARIANTS`."""
        return max((key for key in VARIANTS if self.name.startswith(key)), key=len)

    @property
    def licence(self) -> str:
        """Licence of the weights."""
        return FAMILIES[VARIANTS[self.variant].family].licence


def _hosted_files() -> dict[str, HostedFile]:
    lines = Path(__file__).with_name("hosted_files.csv").read_text(encoding="utf-8").splitlines()
    files = (
        HostedFile(name=row["name"], repository=row["repository"], size_gb=float(row["size_gb"]))
        for row in csv.DictReader(lines)
    )
    return {file.name: file for file in files}


HOSTED_FILES = _hosted_files()
_PRETRAINED = {  # EVA-01's sizes -> weights of masked image modelling
    "eva_g_patch14": "eva_psz14.pt",
    "eva_g_patch16": "eva_psz14to16.pt",
    "eva_l_patch14": "eva_l_psz14.pt",
    "eva_l_patch16": "eva_l_psz14.pt",
    "eva_debug": "eva_debug",
}

_BY_NAME = {key: entry for entry in OFFICIAL_FILES for key in (entry.name, entry.stem)}


def _close_to(name: str) -> str:
    """Make the sentence that names close matches, or ""."""
    files = (path.name for path in Path().iterdir())
    names = [*(entry.stem for entry in OFFICIAL_FILES), *HOSTED_FILES, *BUNDLED_FILES, *files]
    stem = name
    for suffix in CHECKPOINT_SUFFIXES:
        stem = stem.removesuffix(suffix)
    matches = difflib.get_close_matches(stem, {*names} - {name}, n=3, cutoff=0.6)
    return f" Close to it: {', '.join(matches)}." if matches else ""


def find_official_file(name: str) -> OfficialFile:
    """Look an official release file up by its file name or by its stem.

    Raises:
        ValueError: the release has no such file; the message names the closest ones.
    """
    if name in _BY_NAME:
        return _BY_NAME[name]
    raise ValueError(
        f"{name!r} is not one of the {len(OFFICIAL_FILES)} official EVA-01 files, which "
        f"`eva weights list` names.{_close_to(name)}"
    )


def list_official_files(task: str | None = None) -> tuple[OfficialFile, ...]:
    """Return the official files, all of them or those of one task of `TASKS`."""
    return tuple(entry for entry in OFFICIAL_FILES if task in (None, entry.task))


def bundled_path(name: str) -> Path | None:
    """Return the path of a weight file that ships inside the package, by either name, or None."""
    for bundled, file in BUNDLED_FILES.items():
        if name in (bundled, Path(file).name):
            return require_regular_file(Path(str(resources.files("eva_backbone") / file)))
    return None


def weights_directories() -> tuple[Path, ...]:
    """Return where official files are searched: `$EVA_WEIGHTS` if set, then `~/.cache/eva`."""
    value = os.environ.get(WEIGHTS_VARIABLE, "")
    directories = [value, DEFAULT_WEIGHTS_DIRECTORY] if value else [DEFAULT_WEIGHTS_DIRECTORY]
    return tuple(dict.fromkeys(Path(directory).expanduser() for directory in directories))


def resolve_source(source: str | os.PathLike[str]) -> Path:
    """Turn a path, the name of a released file or an address into the path of an existing file.

    In this order: an existing file; a bundled name (`eva_debug`); an official name, with or
    without its suffix, in `$EVA_WEIGHTS` and then in `~/.cache/eva`, where a missing one is
    downloaded to (into the first of the two that is named); a name of `HOSTED_FILES`, or timm's own
    (`timm/vit_large_patch16_dinov3.lvd1689m`); the output folder of a run of any trainer, of whose
    files `eva_backbone.checkpoints.run_folders` takes one; an address of the hub. Files of the hub
    are in `huggingface_hub`'s cache.

    A file that has an official name must be the official one: its SHA-256 is verified once, and
    again when it changes. A modified file needs a name of its own.

    Args:
        source: Path of a file or of a run's folder, name, or `hf://ORG/REPOSITORY/FILE@REVISION`.

    Raises:
        FileNotFoundError: a path without a file, a folder without weights of a run, or a file that
            is neither on this machine nor can be downloaded; the message says why, and how to get
            it by hand.
        ValueError: a bare name that is neither bundled nor official, an official name with other
            content, an address of another form, or a pipe or device.
    """
    name = os.fspath(source)
    if is_address(name):
        file = parse_address(name)
        if file.repository == REPOSITORY and file.file in SHA256:
            return _resolve_official(find_official_file(file.file), file.revision)
        return _verified(_fetched(file))
    try:
        path = Path(name).expanduser()
    except RuntimeError:  # "~" of a user that does not exist
        path = Path(name)
    if path.is_file():
        return _verified(path)
    if path.exists() and not path.is_dir():
        return require_regular_file(path)  # which says what it is
    hosted = _hosted_repository(name)
    if hosted:
        return _fetched(HubFile(hosted))
    bundled = bundled_path(name)
    if bundled:
        return bundled
    if name in _BY_NAME:
        return _resolve_official(_BY_NAME[name])
    looks_like_a_path = path.name != name or path.suffix in CHECKPOINT_SUFFIXES or path.is_dir()
    if not looks_like_a_path:
        raise ValueError(
            f"{name!r} is neither a path nor the name of weights.{_close_to(name)} `eva weights "
            "list` has all names; pass your own weights by their path, e.g. './my_checkpoint.pt', "
            "or by the folder of their run."
        )
    if path.is_dir():
        files = [path / DEFAULT_FILE, path / f"model{SHARDS}"]  # transformers', timm's
        present = [file for file in files if file.is_file() and (path / "config.json").is_file()]
        return present[0] if present else weights_of_run(path)
    raise FileNotFoundError(
        f"{describe_missing(path)}, looked for as {path.absolute()}, and no official file has this "
        f"name.{_close_to(path.name)} Name the folder of a run, a {'/'.join(CHECKPOINT_SUFFIXES)} "
        "file that exists, an official one (`eva weights list`, list_official_files()) or an "
        f"address {FORM}."
    )


def _hosted_repository(name: str) -> str:
    """Return timm's repository of a name of `HOSTED_FILES` or of timm's own, or ""."""
    if name in HOSTED_FILES:
        return HOSTED_FILES[name].repository
    is_of_hub = re.fullmatch(r"timm/[\w.-]+", name) and not Path(name).exists()
    return name if is_of_hub else ""


def find_backbone(name: str) -> tuple[str, str]:
    """Find the variant and the weights of a plain ViT by name.

    Args:
        name: A name of `HOSTED_FILES`, or a key of `VARIANTS`: EVA-01's begin with its pre-trained
            weights, those that nobody hosts with random ones.

    Returns:
        A key of `VARIANTS`, and the name of weights, or "".

    Raises:
        ValueError: For an unknown name; the message names close ones.
    """
    if name in HOSTED_FILES:
        return HOSTED_FILES[name].variant, name
    if name in VARIANTS:
        return name, _PRETRAINED.get(name, "")
    close = difflib.get_close_matches(name, [*HOSTED_FILES, *VARIANTS], n=3, cutoff=0.5)
    matches = f"; close to it: {', '.join(close)}" if close else ""
    raise ValueError(
        f"{name!r} is no backbone{matches}. `eva weights list` and docs/backbones.md have them"
    )


def require_known(source: str | os.PathLike[str]) -> None:
    """Refuse a path without weights as `resolve_source` does; nothing is downloaded."""
    name = os.fspath(source)
    if not _hosted_repository(name) and name not in _BY_NAME and not is_address(name):
        resolve_source(name)


def is_weights(word: str | os.PathLike[str]) -> bool:
    """Return whether a word is the folder of a run with weights, or a name or path of a file."""
    path = Path(word)
    try:
        run = path.is_dir() and weights_of_run(path).is_file()
    except OSError:
        return False
    return (
        run
        or path.suffix in CHECKPOINT_SUFFIXES
        or str(word) in {*_BY_NAME, *HOSTED_FILES, *BUNDLED_FILES}
    )


def _resolve_official(entry: OfficialFile, revision: str = DEFAULT_REVISION) -> Path:
    directories = weights_directories()
    for directory in directories:
        path = directory / entry.name
        if path.is_file():
            if directory != directories[0]:
                missed = f"{entry.name} is not in ${WEIGHTS_VARIABLE} ({directories[0]})"
                logger.warning("%s; using %s", missed, path)
            return _verified(path)
    where = f" ({entry.size_gb:g} GB) in {', '.join(map(str, directories))}"
    path = _fetched(HubFile(REPOSITORY, entry.name, revision), where, directories[0])
    try:
        return _verified(path)
    except ValueError:
        path.unlink()  # the next one asks the hub again
        raise


def _fetched(file: HubFile, where: str = "", folder: Path | None = None) -> Path:
    try:
        return fetch(file, folder)
    except HubError as error:
        raise FileNotFoundError(
            f"{file} is not on this machine{where} and was not downloaded: {error}. By hand: "
            f"{_download_command(file, folder)}"
        ) from error


def _download_command(file: HubFile, folder: Path | None) -> str:
    command = f"hf download {file.repository} {shlex.quote(file.file)}"
    pinned = "" if file.revision == DEFAULT_REVISION else f" --revision {file.revision}"
    into = "" if folder is None else f" --local-dir {shlex.quote(str(folder))}"
    return f"{command}{pinned}{into}"


def _verified(path: Path) -> Path:
    """A file that has an official name has the official content."""
    if path.name in SHA256:
        fetch = _download_command(HubFile(REPOSITORY, path.name), weights_directories()[0])
        advice = (
            f"download it again with: {fetch}. If it is a file of your own, give it another name: "
            "only official names are verified"
        )
        verify_once(path, SHA256[path.name], advice=advice)
    return path
