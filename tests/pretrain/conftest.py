"""Tiny CLIP models under open_clip's names."""

import json

import pytest
import torch

TEXT = {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1}
OWN = {"image_size": 28, "layers": 2, "width": 32, "head_width": 16, "patch_size": 7}
TIMM = {"image_size": 70, "timm_model_name": "eva_tiny_for_tests", "timm_proj": None}
CONFIGS = {
    "tiny": OWN,
    "tiny-quickgelu": OWN,
    "tiny-avg": OWN | {"pool_type": "avg"},
    "tiny-late-norm": OWN | {"pool_type": "avg", "final_ln_after_pool": True, "no_ln_pre": True},
    "tiny-attention-pool": OWN | {"attentional_pool": True, "attn_pooler_heads": 2},
    "tiny-resnet": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8},
    "tiny-eva": TIMM | {"timm_pool": "token"},
    "tiny-eva-avg": TIMM | {"timm_pool": "avg"},
    "tiny-eva-linear": TIMM | {"timm_pool": "token", "timm_proj": "linear"},
    "tiny-eva-max": TIMM | {"timm_pool": "max"},
    "tiny-siglip": {
        "image_size": 28,
        "timm_model_name": "siglip_tiny_for_tests",
        "timm_pool": "map",
        "timm_proj": "none",
    },
}


def _without_file_options(options):
    return {key: value for key, value in options.items() if "cfg" not in key and "cache" not in key}


def eva_tiny_for_tests(pretrained=False, **options):
    """The sizes of tests/golden/clip.safetensors."""
    from timm.models.eva import Eva

    sizes = {"img_size": 70, "patch_size": 14, "embed_dim": 32, "depth": 4, "num_heads": 2}
    model = Eva(**sizes, mlp_ratio=80 / 32, **_without_file_options(options))
    model.default_cfg = {}
    return model


def siglip_tiny_for_tests(pretrained=False, **options):
    from timm.models.vision_transformer import VisionTransformer

    sizes = {"img_size": 28, "patch_size": 7, "embed_dim": 32, "depth": 2, "num_heads": 2}
    options = _without_file_options(options)
    return VisionTransformer(class_token=False, mlp_ratio=2, **sizes, **options)


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory):
    """Adds the models above to open_clip's and timm's, which have nothing that small."""
    import open_clip
    from open_clip import factory
    from timm.models import _registry as registry

    folder = tmp_path_factory.mktemp("open_clip_models")
    for name, vision in CONFIGS.items():
        quick = {"quick_gelu": True} if name.endswith("quickgelu") else {}
        custom = {"custom_text": True} if "timm_model_name" in vision else {}
        config = {"embed_dim": 32, "vision_cfg": vision, "text_cfg": TEXT, **quick, **custom}
        (folder / f"{name}.json").write_text(json.dumps(config))
    functions = {f.__name__: f for f in (eva_tiny_for_tests, siglip_tiny_for_tests)}
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_MODEL_CONFIG_PATHS", "_MODEL_CONFIGS"):
            patch.setattr(factory, name, getattr(factory, name).copy())
        for name, function in functions.items():
            patch.setitem(registry._model_entrypoints, name, function)
        open_clip.add_model_config(folder)
        yield


@pytest.fixture(scope="session")
def make_clip(tiny_models):
    """Function: a tiny open_clip model with random weights."""
    import open_clip

    def make(name, **options):
        torch.manual_seed(3)
        return open_clip.create_model(name, **options).eval()

    return make
