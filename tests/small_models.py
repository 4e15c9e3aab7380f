"""Small models that several folders of tests share: fixtures, which `conftest.py` registers."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from eva_backbone import SimpleFeaturePyramid, VisionTransformer
from eva_backbone.checkpoints import registry, verification
from eva_backbone.layers import LAYER_NORM_EPS

HERE = Path(__file__).parent
SIZES = {
    "img_size": 56,
    "patch_size": 14,
    "embed_dim": 32,
    "depth": 2,
    "num_heads": 2,
    "mlp_dim": 48,
}


DETECTOR_SIZES = {
    "img_size": 96,
    "patch_size": 16,
    "pretrain_img_size": 64,
    "window_size": 4,
    "global_attn_indexes": (1,),
    "rel_pos": "vitdet",
    "extra_tokens": (),
    "final_norm": False,
}


class Classifier(VisionTransformer):
    """ViT with an official head: `fc_norm` over the mean of the patches, or the class token."""

    def __init__(self, *, outputs, mean_pool, **sizes):
        super().__init__(final_norm=not mean_pool, **sizes)
        self.head = nn.Linear(self.embed_dim, outputs)
        self.fc_norm = nn.LayerNorm(self.embed_dim, eps=LAYER_NORM_EPS) if mean_pool else None

    def classify(self, tokens):
        if self.fc_norm is None:
            return self.head(tokens[:, 0])
        return self.head(self.fc_norm(tokens[:, 1:].mean(1)))

    def forward(self, images):
        return self.classify(self.forward_features(images))


class Detector(SimpleFeaturePyramid):
    """The detector's backbone under its official names: `net.*` and `simfp_N.*`, p2 to p6."""

    def __init__(self, **sizes):
        super().__init__(in_channels=sizes["embed_dim"], patch_size=16, out_channels=24)
        self.net = VisionTransformer(**sizes)

    def forward(self, images):
        levels = self.pyramid(self.net.forward_feature_map(images))
        return [*levels, F.max_pool2d(levels[-1], kernel_size=1, stride=2)]


class Wrapped(nn.Module):
    """A complete model around a backbone, as detectron2 builds it; `rest` is what it adds."""

    def __init__(self, backbone, **rest):
        super().__init__()
        self.backbone = backbone
        for name, module in rest.items():
            self.add_module(name, module)


class Malice:
    """A pickle of this runs code when it is loaded without care."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def _randomise(module, std=0.3):
    """Fill every parameter, also those that start at zero and would hide a mistake."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            offset = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.copy_(offset + std * torch.randn(parameter.shape))
    return module


@pytest.fixture
def official(tmp_path, monkeypatch):
    """Function: let a small file count as the official one of its name; returns its path."""
    monkeypatch.setattr(verification, "RECORDS", str(tmp_path / "verified"))

    def register(path):
        monkeypatch.setitem(registry.SHA256, path.name, verification.sha256_of(path))
        return path

    return register


@pytest.fixture(scope="session")
def steps(load_module):
    """The module `device_steps.py`: small models and one training step of each project."""
    return load_module(Path(__file__).with_name("device_steps.py"))


@pytest.fixture(scope="session")
def malice():
    """Class: unpickled, it makes a folder."""
    return Malice


@pytest.fixture(scope="session")
def randomise():
    """Function: give every parameter of a module a random value."""
    return _randomise


@pytest.fixture(scope="session")
def make_vit():
    """Function: a small ViT with class token, random everywhere, in eval mode."""
    return lambda **sizes: _randomise(VisionTransformer(**SIZES | sizes)).eval()


@pytest.fixture(scope="session")
def make_classifier():
    """Function: a small ViT with a classification head."""

    def make(*, outputs=10, mean_pool=True, **sizes):
        model = Classifier(outputs=outputs, mean_pool=mean_pool, **SIZES | sizes)
        return _randomise(model).eval()

    return make


@pytest.fixture(params=["official", "vision tower", "run", "open_clip"])
def clip_form(request):
    """Function: a ViT's weights as a file of EVA-CLIP has them, beside projection and text tower.

    So does `eva_clip_psz14.pt` name them, `eva_clip_psz14_vision_enc.pt`, a run of this toolkit and
    open_clip's EVA01-g-14.
    """

    def weights(vit, *, width=1024):
        prefix = {"vision tower": "", "open_clip": "visual.trunk."}.get(request.param, "visual.")
        channels = vit["pos_embed"].shape[2]
        state = {prefix + name: value for name, value in vit.items()}
        state |= {f"{prefix}head.weight": torch.ones(width, channels),
                  f"{prefix}head.bias": torch.ones(width)}  # fmt: skip
        if request.param != "vision tower":
            scale = torch.zeros(1) if request.param == "run" else torch.zeros(())
            state |= {"text.token_embedding.weight": torch.zeros(9, 4),
                      "text.transformer.resblocks.0.ln_1.weight": torch.zeros(4),
                      "text." * (prefix == "visual.") + "logit_scale": scale}  # fmt: skip
        return {name: value.clone() for name, value in state.items()}

    weights.name = request.param
    return weights


@pytest.fixture(scope="session")
def make_detector():
    """Function: a small ViTDet backbone with windows, relative positions and pyramid."""
    return lambda **sizes: _randomise(Detector(**SIZES | DETECTOR_SIZES | sizes)).eval()


@pytest.fixture(scope="session")
def wrap():
    """Function: a model with a backbone under `backbone.` and further modules beside it."""
    return Wrapped


@pytest.fixture(scope="session")
def count():
    """Function: number of parameters of a module, or those that a filter on the name keeps."""

    def count_parameters(module, keep=lambda name: True):
        return sum(value.numel() for name, value in module.named_parameters() if keep(name))

    return count_parameters


@pytest.fixture(scope="session")
def clip_weights(tmp_path_factory):
    """File of a CLIP at 32 px with features of 16 values, whose pictures the debug ViT sees."""
    from eva_backbone.checkpoints.loading import load_pretrained
    from eva_contrastive.model.eva_clip import build_eva_clip
    from eva_data.saving import write_tensors

    torch.manual_seed(0)
    model = build_eva_clip("eva_debug", "debug", embed_dim=16, img_size=32)
    load_pretrained(model, "eva_debug", allow_missing=("visual.head", "text"))
    file = tmp_path_factory.mktemp("clip") / "model.safetensors"
    write_tensors(model.state_dict(), file)
    return file


@pytest.fixture(scope="session")
def prescribed(load_module):
    """The module `prescribed.py`: numbered pictures, and a model that gives prescribed logits."""
    return load_module(HERE / "prescribed.py")


@pytest.fixture(scope="session")
def prescribe(prescribed):
    """Function: the model that gives row i of the logits for picture i."""
    return prescribed.Prescribed


@pytest.fixture(scope="session")
def numbered(prescribed):
    """Function: a data set of pictures with labels."""
    return prescribed.Numbered


@pytest.fixture(scope="session")
def cross_entropy():
    """Function: of each row of logits, in numpy."""

    def compute(logits, labels):
        logits = np.asarray(logits, np.float64)
        rows = np.arange(len(logits))
        return np.log(np.exp(logits).sum(1)) - logits[rows, np.asarray(labels)]

    return compute
