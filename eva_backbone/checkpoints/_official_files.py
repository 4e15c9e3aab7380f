"""The official EVA-01 release, and what is bundled, as data.

Every file lives in the hub repository `BAAI/EVA` (MIT). Results are the authors' (paper,
https://arxiv.org/abs/2211.07636, or the official READMEs and logs), never ours.

`size_gb` is what was published: integers are the READMEs' rounded figures, decimals come from
the byte counts that the hub lists. Unknown is `None` or an empty string.
"""

from dataclasses import dataclass
from pathlib import Path

from eva_backbone.checkpoints._official_hashes import SHA256

REPOSITORY = "BAAI/EVA"
TASKS = ("pretrain", "classification", "clip", "detection", "segmentation", "video")


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
        source=REPOSITORY,
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
