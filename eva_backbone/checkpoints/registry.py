"""The official EVA-01 release as data, and the one place that turns a name into a file.

Every file lives in the hub repository `BAAI/EVA` (MIT). Results are the authors' (paper,
https://arxiv.org/abs/2211.07636, or the official READMEs and logs), never ours. Nothing here opens
a network connection: a missing file is reported together with the command that fetches it.

`size_gb` is what was published: integers are the READMEs' rounded figures, decimals come from
the byte counts that the hub lists. Unknown is `None` or an empty string.
"""

import difflib
import logging
import os
import shlex
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from eva_backbone.checkpoints._official_hashes import SHA256
from eva_backbone.checkpoints.reading import require_regular_file
from eva_backbone.checkpoints.verification import verify_once
from eva_backbone.checkpoints.verification import verify_sha256 as verify_sha256

logger = logging.getLogger(__name__)

TASKS = ("pretrain", "classification", "clip", "detection", "segmentation", "video")
WEIGHTS_VARIABLE = "EVA_WEIGHTS"
DEFAULT_WEIGHTS_DIRECTORY = "~/.cache/eva"
CHECKPOINT_SUFFIXES = (".pt", ".pth", ".safetensors")
_SUFFIXES = "/".join(CHECKPOINT_SUFFIXES)


@dataclass(frozen=True, kw_only=True)
class OfficialFile:
    """One file of the official release.

    `variant` names a row of `eva_backbone.variants`; `resolution` is the training input in pixels
    (for a two-phase training, the last phase); `note` holds what a loader's user should know.
    """

    name: str
    task: str
    variant: str
    resolution: int | None
    size_gb: float | None
    sha256: str | None
    result: str
    source: str
    note: str = ""

    @property
    def stem(self) -> str:
        """The file name without its suffix; it is accepted wherever the name is."""
        return Path(self.name).stem


@dataclass(frozen=True, kw_only=True)
class BundledFile:
    """A small weight file that ships inside the package; `file` is relative to the package."""

    name: str
    file: str
    variant: str
    note: str = ""


def _file(
    name: str,
    task: str,
    *,
    variant: str = "eva_g_patch14",
    resolution: int | None = 224,
    size_gb: float | None = None,
    result: str = "",
    note: str = "",
) -> OfficialFile:
    return OfficialFile(
        name=name,
        task=task,
        variant=variant,
        resolution=resolution,
        size_gb=size_gb,
        sha256=SHA256.get(name),
        result=result,
        source="BAAI/EVA",
        note=note,
    )


_FC_NORM = "mean pooling, then fc_norm, then head; not wrapped in model_ema"
_LINEAR = "cls token after norm; head is (BatchNorm without affine, Linear): head.0.*, head.1.*"
_EVA_L = "one full attn.qkv.bias (no q_bias/v_bias); fc_norm and head; container not confirmed"
_DET = "container model (fvcore), fp32; keys backbone.net.*; q_bias/v_bias, rel_pos_h/rel_pos_w"
_SEG = "container state_dict (mmcv); keys backbone.*, decode_head.*; 8 decoder layers, no rel-pos"
_SEG_REL = (
    "container state_dict (mmcv); keys backbone.*, decode_head.*; 9 decoder layers, "
    "relative_position_bias_table, gamma_1/gamma_2"
)
_VIDEO = "container model (module also accepted), fp32; 5-D patch weight, {} frames in pos_embed"

# fmt: off
OFFICIAL_FILES: tuple[OfficialFile, ...] = (
    # masked-image pre-training
    _file("eva_psz14.pt", "pretrain", size_gb=2.02,
          note="fp16; container model or module; also mask_token, norm.*, lm_head.* (768)"),
    _file("eva_psz14to16.pt", "pretrain", variant="eva_g_patch16", size_gb=2,
          note="eva_psz14 with patch kernel and pos_embed resampled (bicubic); container model"),
    _file("eva_l_psz14.pt", "pretrain", size_gb=0.63, variant="eva_l_patch14",
          note="MAE style: full attn.qkv.bias; mask_token and decoder* keys are not the encoder's"),
    # image classification
    _file("eva_21k_224px_psz14.pt", "classification", size_gb=2.08,
          note="fp16; fc_norm and a 21841-class head; container model or module"),
    _file("eva_21k_1k_336px_psz14_ema_89p6.pt", "classification", resolution=336, size_gb=4.05,
          result="ImageNet-1K top-1 89.6", note=f"EMA weights, fp32; {_FC_NORM}"),
    _file("eva_21k_1k_560px_psz14_ema_89p7.pt", "classification", resolution=560, size_gb=4.06,
          result="ImageNet-1K top-1 89.7", note=f"EMA weights, fp32; {_FC_NORM}"),
    _file("eva_l_psz14_21k_ft.pt", "classification", size_gb=0.65, variant="eva_l_patch14",
          note=f"21841 classes; {_EVA_L}"),
    _file("eva_l_psz14_196px_1k_ft_88p0.pt", "classification",
          size_gb=1.22, variant="eva_l_patch14",
          resolution=196, result="ImageNet-1K top-1 88.0", note=_EVA_L),
    _file("eva_l_psz14_196px_21k_to_1k_ft_88p6.pt", "classification",
          size_gb=1.22, variant="eva_l_patch14",
          resolution=196, result="ImageNet-1K top-1 88.6", note=_EVA_L),
    _file("eva_l_psz14_336px_1k_ft_88p65.pt", "classification",
          size_gb=1.22, variant="eva_l_patch14",
          resolution=336, result="ImageNet-1K top-1 88.6",
          note=f"the README says 88.6, the file name 88.65; {_EVA_L}"),
    _file("eva_l_psz14_336px_21k_to_1k_ft_89p2.pt", "classification",
          size_gb=1.22, variant="eva_l_patch14",
          resolution=336, result="ImageNet-1K top-1 89.2", note=_EVA_L),
    _file("eva_clip_vis_enc_sz224_lincls_86p5.pth", "classification", size_gb=4.05,
          result="ImageNet-1K top-1 86.5 (linear probe)", note=_LINEAR),
    _file("eva_clip_vis_enc_sz336_lincls_86p5.pth", "classification", size_gb=4.05, resolution=336,
          result="ImageNet-1K top-1 86.5 (linear probe)", note=_LINEAR),
    _file("eva_clip_vis_enc_sz224_ftcls_89p1.pt", "classification",
          size_gb=4.05, result="ImageNet-1K top-1 89.1",
          note="container model, module or bare; fc_norm and head"),
    _file("eva_clip_vis_enc_sz336_ftcls_89p4.pt", "classification", size_gb=4.05, resolution=336,
          result="ImageNet-1K top-1 89.4",
          note="container model, module or bare; fc_norm and head"),
    # contrastive image-text
    _file("eva_clip_psz14.pt", "clip", size_gb=2.27,
          result="ImageNet-1K zero-shot top-1 78.5",
          note="fp16; visual.* and text.*, logit_scale under text.; visual.head has a bias"),
    _file("eva_clip_psz14_vision_enc.pt", "clip", size_gb=2.03,
          note="fp16; the vision tower, no visual. prefix; head 1024 and container not confirmed"),
    # detection and instance segmentation; published results are at 1536 px, single scale
    _file("eva_o365.pth", "detection", variant="eva_g_patch16", resolution=1280, size_gb=4.29,
          note=f"{_DET}; no mask head, 365 classes; 1024 px for the first 320k of 380k iterations"),
    _file("eva_coco_det.pth", "detection", variant="eva_g_patch16", resolution=1280, size_gb=4.3,
          result="COCO val box AP 64.2 / mask AP 53.9", note=_DET),
    _file("eva_coco_seg.pth", "detection", variant="eva_g_patch16", resolution=1280, size_gb=4.3,
          result="COCO val box AP 63.9 / mask AP 55.0", note=_DET),
    _file("eva_lvis.pth", "detection", variant="eva_g_patch16", resolution=1280, size_gb=4.31,
          result="LVIS v1 val box AP 62.2 / mask AP 55.0",
          note=f"{_DET}; three fed_loss_cls_weights buffers"),
    # semantic segmentation
    _file("eva_sem_seg_mask2former_cocostuff_53p4.pth", "segmentation",
          size_gb=5.12, variant="eva_g_patch16",
          resolution=896, result="COCO-Stuff-164K mIoU 53.4 (ss)", note=_SEG),
    _file("eva_sem_seg_mask2former_cocostuff_relpos_layerscale_9dec_53p2.pth", "segmentation",
          size_gb=8.37,
          variant="eva_g_patch16", resolution=896, result="COCO-Stuff-164K mIoU 53.2 (ss)",
          note=_SEG_REL),
    _file("eva_sem_seg_mask2former_ade_ss61p5_ms62p3.pth", "segmentation",
          size_gb=5.12, variant="eva_g_patch16",
          resolution=896, result="ADE20K mIoU 61.5 (ss) / 62.3 (ms)", note=_SEG),
    _file("eva_sem_seg_mask2former_ade_relpos_layerscale_9dec_ss61p5_ms62p3.pth", "segmentation",
          size_gb=8.37,
          variant="eva_g_patch16", resolution=896, result="ADE20K mIoU 61.5 (ss) / 62.3 (ms)",
          note=_SEG_REL),
    # video
    _file("eva_video_k722.pth", "video", size_gb=4.06,
          result="Kinetics-722 top-1 84.9 (official log, 8 frames, 4x3 views)",
          note=_VIDEO.format(8)),
    _file("eva_video_k400.pth", "video", size_gb=4.07,
          result="Kinetics-400 top-1 89.7", note=_VIDEO.format(16)),
    _file("eva_video_k600.pth", "video", size_gb=4.07,
          result="Kinetics-600 top-1 89.8", note=_VIDEO.format(16)),
    _file("eva_video_k700.pth", "video", size_gb=4.07,
          result="Kinetics-700 top-1 82.9", note=_VIDEO.format(16)),
)
# fmt: on

BUNDLED_FILES: tuple[BundledFile, ...] = (
    BundledFile(
        name="eva_debug",
        file="weights/eva_debug.safetensors",
        variant="eva_debug",
        note="local debug backbone for tests and the quick start; not an official release",
    ),
)


_BY_NAME = {key: entry for entry in OFFICIAL_FILES for key in (entry.name, entry.stem)}


def _closest(name: str) -> str:
    known = [entry.stem for entry in OFFICIAL_FILES] + [entry.name for entry in BUNDLED_FILES]
    for suffix in CHECKPOINT_SUFFIXES:
        name = name.removesuffix(suffix)
    return ", ".join(difflib.get_close_matches(name, known, n=3, cutoff=0.6))


def find_official_file(name: str) -> OfficialFile:
    """Look an official release file up by its file name or by its stem.

    Raises:
        ValueError: the release has no such file; the message names the closest ones.
    """
    if name in _BY_NAME:
        return _BY_NAME[name]
    closest = _closest(name)
    hint = f"Close matches: {closest}. " if closest else ""
    raise ValueError(
        f"{name!r} is not one of the {len(OFFICIAL_FILES)} official EVA-01 files. {hint}"
        "list_official_files() has them all; for a file of your own pass its path, "
        "e.g. './my_checkpoint.pt'."
    )


def list_official_files(task: str | None = None) -> tuple[OfficialFile, ...]:
    """Return the official files, all of them or those of one task of `TASKS`."""
    if task is not None and task not in TASKS:
        raise ValueError(f"unknown task {task!r}; use one of {', '.join(TASKS)}, or None for all")
    return tuple(entry for entry in OFFICIAL_FILES if task in (None, entry.task))


def bundled_path(name: str) -> Path:
    """Return the path of a weight file that ships inside the package.

    Raises:
        ValueError: nothing of that name is bundled.
        FileNotFoundError: the installed package lacks its data file.
    """
    for entry in BUNDLED_FILES:
        if name in (entry.name, Path(entry.file).name):
            path = Path(str(resources.files("eva_backbone").joinpath(entry.file)))
            if not path.is_file():
                raise FileNotFoundError(
                    f"the bundled file {entry.name!r} should be at {path} but is not; "
                    "reinstall eva_backbone (its package data is missing)"
                )
            return path
    raise ValueError(
        f"{name!r} is not bundled; bundled are {', '.join(entry.name for entry in BUNDLED_FILES)}"
    )


def weights_directories() -> tuple[Path, ...]:
    """Return where official files are searched: `$EVA_WEIGHTS` if set, then `~/.cache/eva`."""
    chosen = os.environ.get(WEIGHTS_VARIABLE, "")
    directories = [chosen, DEFAULT_WEIGHTS_DIRECTORY] if chosen else [DEFAULT_WEIGHTS_DIRECTORY]
    return tuple(dict.fromkeys(Path(directory).expanduser() for directory in directories))


def download_command(entry: OfficialFile) -> str:
    """Return the shell command that fetches an official file to where it will be found."""
    directory = shlex.quote(str(weights_directories()[0]))
    return f"hf download {entry.source} {entry.name} --local-dir {directory}"


def resolve_source(source: str | os.PathLike[str]) -> Path:
    """Turn a path or the name of a released file into the path of an existing file.

    In this order: an existing file; a bundled name (`eva_debug`); an official name, with or
    without its suffix, in `$EVA_WEIGHTS` and then in `~/.cache/eva`. Nothing is ever downloaded.

    A file that has an official name must be the official one: its SHA-256 is verified once, and
    again when it changes. A modified file needs a name of its own.

    Raises:
        FileNotFoundError: a path without a file, or an official file that is not on this machine.
        ValueError: a bare name that is neither bundled nor official, an official name with other
            content, or a pipe or device.
    """
    text = os.fspath(source)
    try:
        path = Path(text).expanduser()
    except RuntimeError:  # "~" of a user that does not exist
        path = Path(text)
    if path.is_file():
        return _verified(path)
    if path.exists() and not path.is_dir():
        return require_regular_file(path)  # which says what it is
    if any(text in (entry.name, Path(entry.file).name) for entry in BUNDLED_FILES):
        return bundled_path(text)
    looks_like_a_path = path.name != text or path.suffix in CHECKPOINT_SUFFIXES or path.is_dir()
    if text in _BY_NAME or not looks_like_a_path:
        return _resolve_official(find_official_file(text))
    if path.is_dir():
        raise FileNotFoundError(
            f"{text!r} is a directory; pass one checkpoint file of it ({_SUFFIXES})"
        )
    closest = _closest(path.name)
    hint = f" Close registered names: {closest}." if closest else ""
    raise FileNotFoundError(
        f"there is no file {text!r} (looked for {path.absolute()}), and it is not a registered "
        f"name.{hint} Pass an existing {_SUFFIXES} file or a name of list_official_files(); "
        "nothing is downloaded."
    )


def _resolve_official(entry: OfficialFile) -> Path:
    directories = weights_directories()
    for directory in directories:
        path = directory / entry.name
        if path.is_file():
            if directory != directories[0]:
                missed = f"{entry.name} is not in ${WEIGHTS_VARIABLE} ({directories[0]})"
                logger.warning("%s; using %s", missed, path)
            return _verified(path)
    searched = ", ".join(
        str(directory) + ("" if directory.is_dir() else " (no such directory)")
        for directory in directories
    )
    unset = "" if os.environ.get(WEIGHTS_VARIABLE) else f"; ${WEIGHTS_VARIABLE} is not set"
    size = f", {entry.size_gb:g} GB" if entry.size_gb is not None else ""
    raise FileNotFoundError(
        f"the official file {entry.name} ({entry.source}{size}) is not on this machine: looked for "
        f"the path {Path(entry.name).absolute()} and in {searched}{unset}. Nothing is downloaded "
        f"automatically; fetch it once with: {download_command(entry)}"
    )


def _verified(path: Path) -> Path:
    """A file that has an official name has the official content."""
    if path.name in SHA256:
        fetch = download_command(find_official_file(path.name))
        verify_once(path, SHA256[path.name], fetch=fetch)
    return path


def markdown_table() -> str:
    """Return the table of `docs/checkpoints.md`; a test keeps the two in step."""
    lines = [
        "| file | task | variant | px | GB | published result (paper/official README) | sha256 |",
        "|---|---|---|---:|---:|---|---|",
    ]
    for entry in OFFICIAL_FILES:
        pixels = "-" if entry.resolution is None else str(entry.resolution)
        size = "-" if entry.size_gb is None else f"{entry.size_gb:g}"
        sha256 = "-" if entry.sha256 is None else f"`{entry.sha256[:12]}`"
        lines.append(
            f"| `{entry.name}` | {entry.task} | `{entry.variant}` | {pixels} | {size} "
            f"| {entry.result or '-'} | {sha256} |"
        )
    return "\n".join(lines)
