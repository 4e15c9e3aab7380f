"""The EVA vision transformer: modules, checkpoints and layer groups. Imports torch only."""

from eva_backbone.checkpoints.from_weights import load_vit
from eva_backbone.checkpoints.loading import LoadReport, load_pretrained
from eva_backbone.feature_pyramid import SimpleFeaturePyramid
from eva_backbone.initialisation import no_init_weights
from eva_backbone.layer_decay import (
    get_vit_lr_decay_rate,
    layer_groups,
    param_groups_layer_decay,
)
from eva_backbone.variants import (
    VARIANTS,
    build_vit,
    eva_b_patch16,
    eva_debug,
    eva_g_patch14,
    eva_g_patch16,
    eva_l_patch14,
    eva_l_patch16,
    eva_s_patch16,
    eva_ti_patch16,
)
from eva_backbone.video import VideoTransformer
from eva_backbone.vit import VisionTransformer

__all__ = [
    "VARIANTS",
    "LoadReport",
    "SimpleFeaturePyramid",
    "VideoTransformer",
    "VisionTransformer",
    "build_vit",
    "eva_b_patch16",
    "eva_debug",
    "eva_g_patch14",
    "eva_g_patch16",
    "eva_l_patch14",
    "eva_l_patch16",
    "eva_s_patch16",
    "eva_ti_patch16",
    "get_vit_lr_decay_rate",
    "layer_groups",
    "load_pretrained",
    "load_vit",
    "no_init_weights",
    "param_groups_layer_decay",
]
