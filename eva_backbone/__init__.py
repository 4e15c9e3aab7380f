"""The EVA vision transformer: modules, checkpoints and layer groups. Imports torch only.

The names below are imported when they are used, so that a module of this package that needs no
torch, such as `variants`, does not load it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eva_backbone.checkpoints.from_weights import load_vit
    from eva_backbone.checkpoints.loading import LoadReport, load_pretrained
    from eva_backbone.feature_pyramid import SimpleFeaturePyramid
    from eva_backbone.layer_decay import (
        get_vit_lr_decay_rate,
        layer_groups,
        param_groups_layer_decay,
    )
    from eva_backbone.layers import no_init_weights
    from eva_backbone.variants import (
        VARIANTS,
        build_vit,
        eva_b_patch16,
        eva_debug,
        eva_debug_small,
        eva_g_patch14,
        eva_g_patch16,
        eva_l_patch14,
        eva_l_patch16,
        eva_s_patch16,
        eva_ti_patch16,
    )
    from eva_backbone.vit import VideoTransformer, VisionTransformer

__all__ = [
    "VARIANTS",
    "LoadReport",
    "SimpleFeaturePyramid",
    "VideoTransformer",
    "VisionTransformer",
    "build_vit",
    "eva_b_patch16",
    "eva_debug",
    "eva_debug_small",
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

_ELSEWHERE = {  # module -> names; all others are of `variants`
    "checkpoints.from_weights": ("load_vit",),
    "checkpoints.loading": ("LoadReport", "load_pretrained"),
    "feature_pyramid": ("SimpleFeaturePyramid",),
    "layer_decay": ("get_vit_lr_decay_rate", "layer_groups", "param_groups_layer_decay"),
    "layers": ("no_init_weights",),
    "vit": ("VideoTransformer", "VisionTransformer"),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    modules = (module for module, names in _ELSEWHERE.items() if name in names)
    module = importlib.import_module(f"{__name__}.{next(modules, 'variants')}")
    value = globals()[name] = getattr(module, name)  # the next time without this function
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
