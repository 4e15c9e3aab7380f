"""Adapters: outputs, gradients, the folder that they are saved in, and what is refused."""

import json
import shutil
import weakref
from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file

from eva_backbone import VisionTransformer, load_vit
from eva_backbone.checkpoints.reading import Weights
from eva_backbone.checkpoints.registry import bundled_path
from eva_backbone.checkpoints.verification import sha256_of
from eva_backbone.lora import LoraSettings, add_adapters
from eva_classification.config import ModelConfig
from eva_classification.models import load_classifier
from eva_classification.training import build_model
from eva_command.convert import main as convert
from eva_runs.adapters import Adapters
from eva_video.model.classifier import build_video_classifier

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def built(base="eva_debug", **settings):
    """A classifier of 64 px, for which the base's positions are resampled."""
    torch.manual_seed(0)
    config = ModelConfig(variant="eva_debug", image_size=64, init_checkpoint=str(base), **settings)
    return build_model(config, num_classes=3)


def trained(folder, *, seed, base="eva_debug", **settings):
    """A classifier with adapters as after a training, which is saved."""
    model = built(base)
    adapters = Adapters(model, LoraSettings(rank=4, **settings), base)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    adapters.write(model.state_dict(), folder)
    return model.eval()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Two adapters on one base: folders and models."""
    place = tmp_path_factory.mktemp("adapters")
    return [
        (place / name, trained(place / name, seed=seed, first_block=2, alpha=3.0))
        for seed, name in enumerate(("one", "other"))
    ]


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved[0][0], tmp_path / "adapter")


@pytest.mark.parametrize("checkpointing", [False, True])
def test_blocks_below_the_adapters_have_no_graph(checkpointing):
    model = built(activation_checkpointing=checkpointing).train()
    before = model(IMAGES)
    add_adapters(model, LoraSettings(rank=4, first_block=2))
    graphs, held = [], weakref.WeakSet()

    def pack(tensor):  # what the graph holds, as long as it does
        box = partial(tensor.view_as, tensor)
        held.add(box)
        return box

    for block in model.blocks:
        block.register_forward_hook(lambda *call: graphs.append(call[2].grad_fn is not None))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda box: box()):
        tokens = model.forward_tokens(model.embed(IMAGES)[0], stop=2)
        assert not held
        graphs.clear()
        logits = model(IMAGES)
    assert held
    assert not tokens.requires_grad
    assert torch.equal(logits, before)  # adapters begin as zero
    assert graphs == [False, False, *[True] * (model.depth - 2)]
    logits.sum().backward()
    learning = {name for name, one in model.named_parameters() if one.grad is not None}
    assert learning == {name for name, one in model.named_parameters() if one.requires_grad}
    assert all(".lora_" in name or name.startswith(("head.", "fc_norm.")) for name in learning)


def test_a_folder_with_its_base_is_the_trained_model(saved):
    """Whoever reads it: this toolkit, or peft around the model of the base."""
    import peft  # a slow import, that nothing else needs

    results = []
    for place, model in saved:
        found = load_classifier(place)(IMAGES)
        results.append(model(IMAGES))
        torch.testing.assert_close(found, results[-1], atol=1e-6, rtol=1e-5)
        base = built()
        with torch.no_grad():
            base.pos_embed.zero_()  # which the base's file has for another size
        wrapped = peft.PeftModel.from_pretrained(base, str(place)).eval()
        assert torch.equal(wrapped(IMAGES), results[-1])
    assert (results[0] - results[1]).abs().max() > 0.01
    wrapped.load_adapter(str(saved[0][0]), "one")  # beside the other, with a head of its own
    for name, expected in (("one", results[0]), ("default", results[1])):
        wrapped.set_adapter(name)
        assert torch.equal(wrapped.eval()(IMAGES), expected)
    assert load_vit(saved[0][0]).blocks[0].attn.qkv.weight.dtype == torch.float32


def test_adapters_hold_what_the_base_lacks_and_nothing_else(saved):
    tensors = load_file(saved[0][0] / "adapter_model.safetensors")
    whole = {name.removeprefix("base_model.model.") for name in tensors if ".lora_" not in name}
    assert whole == {"fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias", "pos_embed"}
    assert len(tensors) - len(whole) == 2 * 4 * 3


def test_adapters_of_an_adapter(saved, tmp_path):
    model = trained(tmp_path / "second", seed=5, base=saved[0][0], layers=("qkv",))
    torch.testing.assert_close(load_classifier(tmp_path / "second")(IMAGES), model(IMAGES))


def test_a_released_base_keeps_its_name_beside_a_copy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "eva_debug").mkdir()
    own = tmp_path / "eva_debug.safetensors"
    shutil.copy(bundled_path("eva_debug"), own)
    for base, noted in (("eva_debug", "eva_debug"), (own.name, str(own))):
        trained(tmp_path / "adapter", seed=5, base=base)
        config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == noted


def test_a_base_by_a_relative_path_is_found_from_another_folder(saved, tmp_path, monkeypatch):
    shutil.copytree(saved[0][0], tmp_path / "first")
    monkeypatch.chdir(tmp_path)
    model = trained(tmp_path / "second", seed=5, base="first")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    torch.testing.assert_close(load_classifier(tmp_path / "second")(IMAGES), model(IMAGES))
    shutil.rmtree(tmp_path / "first")  # the adapter is not taken for its base, of the same name
    with pytest.raises(FileNotFoundError, match="first"):
        load_classifier(tmp_path / "second")


def test_another_base_is_refused_by_its_hash(folder, tmp_path):
    file = tmp_path / "base.safetensors"
    base = dict(Weights.read("eva_debug").tensors)
    save_file(base, file)
    trained(folder, seed=0, base=file)
    shutil.move(file, folder / file.name)  # it is found beside the adapter, too
    load_vit(folder)
    save_file(base | {"cls_token": base["cls_token"] + 1}, folder / file.name)
    with pytest.raises(ValueError, match=r"base\.safetensors.*SHA-256"):
        load_vit(folder)
    (folder / file.name).unlink()
    with pytest.raises(FileNotFoundError, match="base"):
        load_vit(folder)


def test_adapters_of_each_other_are_refused(folder):
    file = folder / "adapter_config.json"
    own = {"base_model_name_or_path": str(folder / "adapter_model.safetensors")}
    own["revision"] = sha256_of(folder / "adapter_model.safetensors")
    file.write_text(json.dumps(json.loads(file.read_text()) | own))
    with pytest.raises(ValueError, match="base"):
        load_vit(folder)


@pytest.mark.parametrize("rel_pos", ["none", "vitdet"])
def test_adapters_of_a_detector_are_merged(tmp_path, rel_pos):
    """Without relative positions nothing in its weights says how large its windows are."""
    sizes = {"img_size": 64, "patch_size": 8, "window_size": 4, "global_attn_indexes": (1,)}
    sizes["rel_pos"] = rel_pos
    sizes |= {"embed_dim": 128, "depth": 5, "num_heads": 4, "mlp_dim": 512, "extra_tokens": ()}
    detector = torch.nn.Module()
    detector.backbone = torch.nn.Module()
    detector.backbone.net = VisionTransformer(**sizes)
    base = tmp_path / "base.safetensors"
    save_file(detector.state_dict(), base)
    adapters = Adapters(detector, LoraSettings(rank=4), base)
    with torch.no_grad():
        for name, parameter in detector.named_parameters():
            parameter += ".lora_B." in name
    adapters.write(detector.state_dict(), tmp_path / "adapter")
    merged, name = tmp_path / "merged.safetensors", "backbone.net.blocks.4.mlp.fc1.weight"
    words = [str(tmp_path / "adapter"), "--merge-lora", "--output", str(merged)]
    assert convert(words) == 0
    assert not load_file(merged)[name].equal(load_file(base)[name])


def test_positions_of_clips_are_trained_beside_adapters(tmp_path):
    model = build_video_classifier("eva_debug", num_classes=2, frames=2, img_size=16)
    base = tmp_path / "base.safetensors"
    save_file(model.state_dict(), base)
    adapters = Adapters(model, LoraSettings(rank=4, first_block=2), base, beside=["pos_embed"])
    assert model.pos_embed.requires_grad
    assert "pos_embed" in adapters.names
    assert not model.cls_token.requires_grad
