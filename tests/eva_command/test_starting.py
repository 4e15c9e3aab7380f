"""Small weights that `eva train` and `eva quickstart --pretrained` begin from, fetched once."""

import hashlib
import re
from types import SimpleNamespace

import pytest
import torch

from eva_backbone.checkpoints.registry import HOSTED_FILES
from eva_command import own_data, quickstart, starting, training
from eva_runs.recipes import find_recipe

GIB = 2**30


@pytest.fixture
def ran(monkeypatch):
    """The commands that `eva train` has called."""
    words = []
    monkeypatch.setattr(own_data, "call", lambda *command: words.append(command) or 0)
    return words


@pytest.fixture
def photos(write_picture, tmp_path):
    for name in ("a/1.png", "b/2.png", "b/3.png"):
        write_picture(tmp_path / "photos" / name)
    return str(tmp_path / "photos")


def value(words, option):
    return words[words.index(option) + 1]


def put(hub, name):
    return hub.put(HOSTED_FILES[name].repository, "model.safetensors", name.encode() * 100)


def test_small_weights_are_fetched_once(hub, ran, photos, capsys):
    digest = put(hub, "eva02_ti14")
    for asked in (True, False):
        hub.requests.clear()
        assert training.main([photos]) == 0
        assert bool(hub.requests) == asked
        shown = capsys.readouterr().out
        assert digest in shown
        assert "MIT" in shown
    command, words = ran[0]
    assert (command, words[0]) == ("classification train", "custom/eva_small")
    assert value(words, "--backbone") == "eva02_ti14"
    assert int(value(words, "--epochs")) == 30
    assert ran[1] == ran[0]


@pytest.mark.parametrize(
    "own",
    [
        ["--backbone", "eva_debug"],
        ["--model.init-checkpoint=mine.pt"],
        ["--recipe", "eva_debug_digits"],
        ["--no-download"],
    ],
)
def test_what_the_user_names_is_taken(hub, ran, photos, own):
    put(hub, "eva02_ti14")
    training.main([photos, *own])
    assert not hub.requests
    ((_, words),) = ran
    assert "eva02_ti14" not in words
    assert own[0] == "--recipe" or {*own} <= {*words}


def test_a_value_that_looks_like_weights_names_none(hub, ran, photos):
    put(hub, "eva02_ti14")
    training.main([photos, "--output", "weights/exp1", "run.seed=3"])
    assert value(ran[0][1], "--backbone") == "eva02_ti14"


def test_without_a_network_it_goes_on_at_once(hub, ran, photos, monkeypatch, capsys):
    from huggingface_hub import constants

    template = constants.HUGGINGFACE_CO_URL_TEMPLATE
    closed = template.replace(hub.url, "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", closed)
    training.main([photos])
    training.main([photos, "--quick"])
    (_, words), (_, quick) = ran
    assert words[0] == "custom/eva_small"
    assert "--backbone" not in words
    assert value(quick, "--weights") == "eva_debug"
    lost = [line for line in capsys.readouterr().out.splitlines() if "is not here" in line]
    assert len(lost) == 2


def test_another_file_than_the_hub_states_is_refused(hub, ran, photos, refused):
    digest = put(hub, "eva02_ti14")
    repository = HOSTED_FILES["eva02_ti14"].repository
    hub.false[repository, "model.safetensors"] = b"x" * 1000
    for _ in range(2):
        with refused(digest):
            training.main([photos])
    assert not ran
    assert hashlib.sha256(b"x" * 1000).hexdigest() != digest


@pytest.mark.parametrize(
    ("memory", "name"),
    [
        *((0, "eva02_ti14"), (8 * GIB, "eva02_s14"), (12 * GIB, "eva02_s14")),
        *((16e9, "eva02_l14"), (24e9, "eva02_l14")),
    ],
)
@pytest.mark.parametrize("task", starting._ON_CARDS)
def test_weights_by_the_card(monkeypatch, tmp_path, task, memory, name):
    card = SimpleNamespace(total_memory=memory)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: memory > 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    monkeypatch.setattr(starting, "fetch_start", lambda _: True)
    recipe, *words = starting.find_start(task, tmp_path, [], "the small one")
    assert value(words, "--backbone") == name
    assert memory == 0 or find_recipe(task, recipe).is_file()
    if name == "eva02_l14":
        assert "lora" in recipe or "--lora" in words


def test_quick_heads(hub, ran, photos, tmp_path, monkeypatch, capsys):
    digest = put(hub, "dinov2_s14")
    training.main([photos, "--quick", "--workers", "0"])
    ((command, words),) = ran
    assert command == "classification evaluate-frozen"
    assert value(words, "--weights") == "dinov2_s14"
    assert value(words, "--val") == photos  # of three images
    assert words[-2:] == ["--workers", "0"]
    assert digest in capsys.readouterr().out
    for own in (["--weights", "mine.pt"], ["--backbone", "mine.pt"]):
        training.main([photos, "--quick", *own])
        _, words = ran.pop()
        assert value(words, "--weights") == "mine.pt"
        assert words.count("--weights") == 1
        assert not {"--backbone", "--image-size"} & {*words}
    (tmp_path / "output/photos_eva_small_quick/best").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    training.main([photos, "--quick"])
    assert value(ran.pop()[1], "--output").endswith("_quick-2")
    maps = {"--train-images": "a"}
    words = starting.plan_quick("segmentation", maps, ["--backbone", "x"], "")
    assert words[2:4] == ["--train-images", "a"]
    with pytest.raises(ValueError, match="detection"):
        starting.plan_quick("detection", {}, [], "")
    with pytest.raises(SystemExit):
        training.main([photos, "--quick", "--bands", "5"])
    assert re.search("--quick .*--bands", capsys.readouterr().err)


def test_a_quick_start_on_small_weights(hub, monkeypatch, refused):
    put(hub, "eva02_ti14")
    ran = []
    monkeypatch.setattr(quickstart, "run_step", lambda command, **_: ran.append(command[3:]) or 0)
    quickstart.main(["segmentation", "--pretrained"])
    assert value(ran[1], "--backbone") == "eva02_ti14"
    assert value(ran[1], "--output").endswith("pretrained")
    with refused("clip"):
        quickstart.main(["clip", "--pretrained"])
