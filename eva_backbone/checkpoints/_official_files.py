"""The official EVA-01 release, and what is bundled, as data.

Every file lives in the hub repository `BAAI/EVA` (MIT). Results are the authors' (paper,
https://arxiv.org/abs/2211.07636, or the official READMEs and logs), never ours.

`size_gb` is what was published: integers are the READMEs' rounded figures, decimals come from
the byte counts that the hub lists. Unknown is `None` or an empty string.
"""

from dataclasses import dataclass
from pathlib import Path

REPOSITORY = "BAAI/EVA"
TASKS = ("pretrain", "classification", "clip", "detection", "segmentation", "video")


# As the publisher's hub lists them.
SHA256: dict[str, str] = {
    "eva_psz14.pt": ("d93dac1cb8c46d2b7d6f9ac6c6db8cba3f08a3ac4c24f2c8190763f609efae41"),
    "eva_psz14to16.pt": ("52e83fe44d4f8fac59123815060993836867cc4ca52d596f049f38801fd77591"),
    "eva_l_psz14.pt": ("e8c33f9563dc5a62e525982c1a4a54648775f18d945f0b023627e5051fba26ad"),
    "eva_21k_224px_psz14.pt": ("fa1a5f6a9e92272503891f08d99378e3119ed2ab601c6fdd64da7fbf3dc77827"),
    "eva_21k_1k_336px_psz14_ema_89p6.pt": (
        "9519504a49b1aadf4c476329af045ebcf78c0d357d877fdcaa265f7628c4579e"
    ),
    "eva_21k_1k_560px_psz14_ema_89p7.pt": (
        "029a221e8af09d80ffbd5739c794cdd8a8ffc9c702da8cea266d35a344b7dbca"
    ),
    "eva_l_psz14_21k_ft.pt": ("3a67d4b3fe7de3fc395ca2c3287e87074ef539e6bf65bbf3f7080a24fe9db038"),
    "eva_l_psz14_196px_1k_ft_88p0.pt": (
        "cc808d1b9517d18d717e85b9bf993144cfd796179ce629f37f65509684df93e6"
    ),
    "eva_l_psz14_196px_21k_to_1k_ft_88p6.pt": (
        "8dd8e245d03fd9741395c56779a79947e84c06a95e3e5623eeaadf7db0337f92"
    ),
    "eva_l_psz14_336px_1k_ft_88p65.pt": (
        "bbd1f929b82e92a9bbae90e6aedab557a97b6b8a8baa70a712d6aea4334d189f"
    ),
    "eva_l_psz14_336px_21k_to_1k_ft_89p2.pt": (
        "d1ca7c366090549a95be833a8f90381221a8b90754bb328e78b69de429e8938b"
    ),
    "eva_clip_vis_enc_sz224_lincls_86p5.pth": (
        "06c6502de7f70a44d993c0a4f2e0b254b5d6105af395a1c2bc1cf18dcd43202e"
    ),
    "eva_clip_vis_enc_sz336_lincls_86p5.pth": (
        "bffb900aafb00b1daee3fa1b3074f011715969af22355f2aea7596e5313f51f7"
    ),
    "eva_clip_vis_enc_sz224_ftcls_89p1.pt": (
        "51f83209c7a0e02b3ee96d849eb81a58f38ff4cd39b0f62c9d9c0785760a212d"
    ),
    "eva_clip_vis_enc_sz336_ftcls_89p4.pt": (
        "b6f654439c61a850e45dd19307cf344a6fe47caddc9ed00bf117df4fbc956c72"
    ),
    "eva_clip_psz14.pt": ("fe1d3a90bb88c3816a8c708b8a16c11c93cc323ec9e7bc7a0e8b979449fa9785"),
    "eva_clip_psz14_vision_enc.pt": (
        "e7b3d8ac5d8358544bf27785b4463093fbfa8e4d23af92d1cf3ad57f9f35d5bd"
    ),
    "eva_o365.pth": ("c2454f293f642b0194208134ec5a5003c0b3dc479922989c2b048e50cac01b30"),
    "eva_coco_det.pth": ("2cbbd46259851bad0052b418464cd866097e0e01bb60ae368b213ab040960650"),
    "eva_coco_seg.pth": ("adada9bd836324265f4f821d2fc4c986fa2dccc351ed7a205b05fa49174c07fd"),
    "eva_lvis.pth": ("ca390ee17ebe229a638b1e4006ab16502097e10bde36d31a0cc13adf0f76f487"),
    "eva_sem_seg_mask2former_cocostuff_53p4.pth": (
        "721dd76504d919f803bc879dd02549aa0e2303e7ec13fe5b1788ec10da2db878"
    ),
    "eva_sem_seg_mask2former_cocostuff_relpos_layerscale_9dec_53p2.pth": (
        "e7082d75f8b33dfc28a50c3fffd0f723c0a094c3a6c4f4b55de1408fcd6d76d8"
    ),
    "eva_sem_seg_mask2former_ade_ss61p5_ms62p3.pth": (
        "ed0b47dd364345a9c9c67b689b2179e4fc4e982cdf303a30539df621a197b078"
    ),
    "eva_sem_seg_mask2former_ade_relpos_layerscale_9dec_ss61p5_ms62p3.pth": (
        "fd6b4c5596d1b092a908713bbb0a0e08a8915084722b8062b19570929c506c3e"
    ),
    "eva_video_k722.pth": ("eaf827cb18bc654e60f8e256d4fa9241805bf4f2762caf64ec62d2e50270b954"),
    "eva_video_k400.pth": ("756be59e7a9622f429117e5adbe10aadd19963cef2e0faf1c00ab803ea45fe74"),
    "eva_video_k600.pth": ("6203cb02547d6342ecc4c6c7e1f8ee95d8e30940669bf746a864a24bad9b0cca"),
    "eva_video_k700.pth": ("eea1ca95a030f7c479d95e4e8894043558ab3bbf34db25a895e32b004da44066"),
}


@dataclass(frozen=True)
class OfficialFile:
    """One file of the official release.

    `variant` names a row of `eva_backbone.variants`; `resolution` is the training input in pixels
    (for a two-phase training, the last phase).
    """

    name: str
    task: str
    variant: str = "eva_g_patch14"
    resolution: int = 224
    size_gb: float | None = None
    result: str = ""
    source: str = REPOSITORY

    @property
    def stem(self) -> str:
        """The file name without its suffix; it is accepted wherever the name is."""
        return Path(self.name).stem

    @property
    def sha256(self) -> str | None:
        """The published SHA-256, if it is known."""
        return SHA256.get(self.name)


@dataclass(frozen=True, kw_only=True)
class BundledFile:
    """A small weight file that ships inside the package; `file` is relative to the package."""

    name: str
    file: str
    variant: str


# fmt: off
OFFICIAL_FILES: tuple[OfficialFile, ...] = (
    # masked-image pre-training
    OfficialFile("eva_psz14.pt", "pretrain", size_gb=2.02),
    OfficialFile("eva_psz14to16.pt", "pretrain", variant="eva_g_patch16", size_gb=2),
    OfficialFile("eva_l_psz14.pt", "pretrain", variant="eva_l_patch14", size_gb=0.63),
    # image classification
    OfficialFile("eva_21k_224px_psz14.pt", "classification", size_gb=2.08),
    OfficialFile("eva_21k_1k_336px_psz14_ema_89p6.pt", "classification", resolution=336,
                 size_gb=4.05, result="ImageNet-1K top-1 89.6"),
    OfficialFile("eva_21k_1k_560px_psz14_ema_89p7.pt", "classification", resolution=560,
                 size_gb=4.06, result="ImageNet-1K top-1 89.7"),
    OfficialFile("eva_l_psz14_21k_ft.pt", "classification", variant="eva_l_patch14", size_gb=0.65),
    OfficialFile("eva_l_psz14_196px_1k_ft_88p0.pt", "classification", variant="eva_l_patch14",
                 resolution=196, size_gb=1.22, result="ImageNet-1K top-1 88.0"),
    OfficialFile("eva_l_psz14_196px_21k_to_1k_ft_88p6.pt", "classification",
                 variant="eva_l_patch14", resolution=196, size_gb=1.22,
                 result="ImageNet-1K top-1 88.6"),
    OfficialFile("eva_l_psz14_336px_1k_ft_88p65.pt", "classification", variant="eva_l_patch14",
                 resolution=336, size_gb=1.22, result="ImageNet-1K top-1 88.6"),
    OfficialFile("eva_l_psz14_336px_21k_to_1k_ft_89p2.pt", "classification",
                 variant="eva_l_patch14", resolution=336, size_gb=1.22,
                 result="ImageNet-1K top-1 89.2"),
    OfficialFile("eva_clip_vis_enc_sz224_lincls_86p5.pth", "classification", size_gb=4.05,
                 result="ImageNet-1K top-1 86.5 (linear probe)"),
    OfficialFile("eva_clip_vis_enc_sz336_lincls_86p5.pth", "classification", resolution=336,
                 size_gb=4.05, result="ImageNet-1K top-1 86.5 (linear probe)"),
    OfficialFile("eva_clip_vis_enc_sz224_ftcls_89p1.pt", "classification", size_gb=4.05,
                 result="ImageNet-1K top-1 89.1"),
    OfficialFile("eva_clip_vis_enc_sz336_ftcls_89p4.pt", "classification", resolution=336,
                 size_gb=4.05, result="ImageNet-1K top-1 89.4"),
    # contrastive image-text
    OfficialFile("eva_clip_psz14.pt", "clip", size_gb=2.27,
                 result="ImageNet-1K zero-shot top-1 78.5"),
    OfficialFile("eva_clip_psz14_vision_enc.pt", "clip", size_gb=2.03),
    # detection and instance segmentation; published results are at 1536 px, single scale
    OfficialFile("eva_o365.pth", "detection", variant="eva_g_patch16", resolution=1280,
                 size_gb=4.29),
    OfficialFile("eva_coco_det.pth", "detection", variant="eva_g_patch16", resolution=1280,
                 size_gb=4.3, result="COCO val box AP 64.2 / mask AP 53.9"),
    OfficialFile("eva_coco_seg.pth", "detection", variant="eva_g_patch16", resolution=1280,
                 size_gb=4.3, result="COCO val box AP 63.9 / mask AP 55.0"),
    OfficialFile("eva_lvis.pth", "detection", variant="eva_g_patch16", resolution=1280,
                 size_gb=4.31, result="LVIS v1 val box AP 62.2 / mask AP 55.0"),
    # semantic segmentation
    OfficialFile("eva_sem_seg_mask2former_cocostuff_53p4.pth", "segmentation",
                 variant="eva_g_patch16", resolution=896, size_gb=5.12,
                 result="COCO-Stuff-164K mIoU 53.4 (ss)"),
    OfficialFile("eva_sem_seg_mask2former_cocostuff_relpos_layerscale_9dec_53p2.pth",
                 "segmentation", variant="eva_g_patch16", resolution=896, size_gb=8.37,
                 result="COCO-Stuff-164K mIoU 53.2 (ss)"),
    OfficialFile("eva_sem_seg_mask2former_ade_ss61p5_ms62p3.pth", "segmentation",
                 variant="eva_g_patch16", resolution=896, size_gb=5.12,
                 result="ADE20K mIoU 61.5 (ss) / 62.3 (ms)"),
    OfficialFile("eva_sem_seg_mask2former_ade_relpos_layerscale_9dec_ss61p5_ms62p3.pth",
                 "segmentation", variant="eva_g_patch16", resolution=896, size_gb=8.37,
                 result="ADE20K mIoU 61.5 (ss) / 62.3 (ms)"),
    # video
    OfficialFile("eva_video_k722.pth", "video", size_gb=4.06,
                 result="Kinetics-722 top-1 84.9 (official log, 8 frames, 4x3 views)"),
    OfficialFile("eva_video_k400.pth", "video", size_gb=4.07, result="Kinetics-400 top-1 89.7"),
    OfficialFile("eva_video_k600.pth", "video", size_gb=4.07, result="Kinetics-600 top-1 89.8"),
    OfficialFile("eva_video_k700.pth", "video", size_gb=4.07, result="Kinetics-700 top-1 82.9"),
)
# fmt: on

BUNDLED_FILES: tuple[BundledFile, ...] = (
    BundledFile(
        name="eva_debug",
        file="weights/eva_debug.safetensors",
        variant="eva_debug",  # for tests and the quick start; not an official release
    ),
)
