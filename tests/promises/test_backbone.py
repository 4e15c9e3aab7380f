"""THE ViT: official names, sizes and files, from a name to features."""

from argparse import Namespace

import pytest
import torch

import eva_backbone

OFFICIAL = 29
SHARED = {"cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"}


@pytest.fixture
def files(documented):
    """The entries of all official files."""
    return documented("eva_backbone", "list_official_files")()


def test_every_official_file_has_a_variant_that_can_be_built(documented, files):
    """With the official parameter names, which EVA-g's joint bias distinguishes from EVA-L's."""
    find = documented("eva_backbone", "find_official_file")
    assert len({entry.stem for entry in files}) == OFFICIAL
    for variant in {entry.variant for entry in files}:
        with torch.device("meta"):
            names = {*getattr(eva_backbone, variant)().state_dict()}
        assert names >= SHARED
        biases = {"q_bias", "v_bias", "qkv.weight"} if "_g_" in variant else {"qkv.bias"}
        depth = 40 if "_g_" in variant else 24
        assert names >= {f"blocks.{depth - 1}.attn.{name}" for name in biases}
        assert f"blocks.{depth}.norm1.weight" not in names
    for entry in files:
        assert find(entry.stem) == find(entry.name) == entry


def test_the_command_lists_them(call_eva, files):
    ended = call_eva("eva", "weights", "list", code=0)
    assert ended.names(*(entry.stem for entry in files))


def test_a_name_that_is_not_here_is_an_error_that_names_it(
    documented, files, tmp_path, monkeypatch
):
    resolve = documented("eva_backbone", "resolve_source")
    monkeypatch.setenv("EVA_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    for entry in files:
        with pytest.raises(FileNotFoundError, match=entry.stem):
            resolve(entry.stem)
    with pytest.raises(ValueError, match=r"eva_psz14"):
        resolve("eva_psz41")


def test_an_official_name_means_the_official_content(files, call_eva, fails, tmp_path, monkeypatch):
    """A file of that name with other content is refused, and the model is as before."""
    model = eva_backbone.eva_debug()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    monkeypatch.setenv("EVA_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    for entry in files:
        torch.save({"model": before}, tmp_path / entry.name)
        with pytest.raises((ValueError, OSError), match=entry.stem):
            eva_backbone.load_pretrained(model, entry.stem)
        (tmp_path / entry.name).unlink()
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    torch.save({"model": before}, tmp_path / files[0].name)
    fails(call_eva("eva", "weights", "verify", code=1), files[0].name)


def test_one_file_by_name_path_and_container(tmp_path):
    bundled = eva_backbone.load_vit("eva_debug").eval()
    state = bundled.state_dict()
    pixels = torch.randn(1, 3, 64, 80)
    with torch.no_grad():
        expected = bundled.forward_features(pixels)
        feature_map = bundled.forward_feature_map(pixels)
    assert expected.shape == (1, 81, 128)
    assert feature_map.shape == (1, 128, 8, 10)
    for name, content in (
        ("bare.pt", state),
        ("model.pth", {"model": state}),
        ("module.pt", {"module": state}),
        ("state.pth", {"state_dict": {f"backbone.{key}": value for key, value in state.items()}}),
        ("ema.pt", {"model_ema": state}),
        ("arguments.pth", {"module": state, "optimizer": {}, "args": Namespace(lr=1e-3)}),
        ("wrapped.pt", {"model": {f"module.{key}": value for key, value in state.items()}}),
    ):
        torch.save(content, tmp_path / name)
        with torch.no_grad():
            assert (
                eva_backbone.load_vit(str(tmp_path / name))
                .eval()
                .forward_features(pixels)
                .equal(expected)
            )


@pytest.mark.parametrize("name", ["blocks.2.attn.proj.weight", "blocks.2.attn.extra.weight"])
def test_a_name_too_few_or_too_many_is_named(tmp_path, name):
    state = eva_backbone.eva_debug().state_dict()
    if state.pop(name, None) is None:
        state[name] = torch.zeros(3)
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=name):
        eva_backbone.load_pretrained(eva_backbone.eva_debug(), str(tmp_path / "weights.pt"))


def test_the_form_of_detectron2_and_the_way_back(call_eva, tmp_path):
    there, back = tmp_path / "there.pth", tmp_path / "back.pt"
    for source, to, output in (
        ("eva_debug", "detectron2-vitdet", there),
        (there, "official", back),
    ):
        call_eva(
            "eva", "convert", source, "--to", to, "--dtype", "fp32", "--output", output, code=0
        )
    ours = eva_backbone.load_vit("eva_debug").state_dict()
    state = torch.load(back, weights_only=True)["model"]
    found = {
        name: state[key] for name in ours for key in state if key.endswith(f"blocks{name[6:]}")
    }
    for name, value in found.items():
        torch.testing.assert_close(value, ours[name], atol=1e-6, rtol=1e-5)
    assert len(found) >= 0.8 * len(ours)
