"""Publishing a run, and weights by their address, with a stand-in of the hub on this machine."""

import json
import shutil

import pytest
from safetensors.torch import load_file

TASKS = ("pretrain", "classification", "video", "clip")
REPO = "someone/eva-mine"
# The process that programs go on from has read the hub's address before the test had one.
CLIENT = """
import runpy, sys
for name in [name for name in sys.modules if name.split(".")[0] == "huggingface_hub"]:
    del sys.modules[name]
sys.argv[0] = "eva"
runpy.run_module("eva_command", run_name="__main__")
"""


@pytest.fixture
def eva(run, hub):
    """Function: run a command as a client of the stand-in."""
    return lambda *words, **more: run("python", "-c", CLIENT, *words, **more)


def _published(folder):
    return {path.name: path for path in folder.iterdir()}


def _names_no_place(files, *places):
    for path in files.values():
        for place in places:
            assert str(place).encode() not in path.read_bytes(), (path.name, place)


@pytest.mark.parametrize("task", TASKS)
def test_what_would_be_published(call_eva, finished, metrics_of, tmp_path, task):
    """Weights without the optimizer's state, a model card, settings and scores; no places."""
    from huggingface_hub import ModelCard

    output = finished(task)
    call_eva("eva", "push", output, REPO, "--dry-run", tmp_path / "card", code=0)
    files = _published(tmp_path / "card")
    assert {*files} == {"README.md", "model.safetensors", "recipe.json", "results.json"}
    _names_no_place(files, output, output.parent, tmp_path)
    last = sorted(output.glob("checkpoints/step_*"))[-1]
    stored, own = load_file(files["model.safetensors"]), load_file(last / "model.safetensors")
    assert stored.keys() == own.keys()
    assert all(stored[name].equal(own[name]) for name in own)
    card = ModelCard.load(files["README.md"])
    assert card.data.license == "mit"
    assert f"hf://{REPO}" in card.text
    results = json.loads(files["results.json"].read_text())
    scores = {f"val_{name}": score for name, score in results["scores"].items()}
    assert scores
    assert scores.items() <= metrics_of(output)[-1].items()


def test_best_weights_and_those_of_the_moving_average(call_eva, finished, tmp_path):
    output = finished("classification")
    for option, name in (("--best", "best/model.safetensors"), ("--ema", "model_ema.safetensors")):
        call_eva("eva", "push", output, REPO, option, "--dry-run", tmp_path / option, code=0)
        stored = load_file(tmp_path / option / "model.safetensors")["head.weight"]
        last = sorted(output.glob("checkpoints/step_*"))[-1]
        file = output / name if option == "--best" else last / name
        assert stored.equal(load_file(file)["head.weight"])


def test_published_and_taken_by_its_address(eva, finished, hub, engine_data, tmp_path):
    output = finished("classification")
    eva("push", output, REPO, "--private", HF_TOKEN=hub.token)
    ((repo, files, _),) = hub.commits
    assert repo == REPO
    assert hub.private == {REPO: True}
    _names_no_place(
        {name: _file(tmp_path / name, content) for name, content in files.items()}, output
    )
    data = ("--data", engine_data / "folder/val", "--workers", 0, "--device", "cpu")
    scores = []
    for number, weights in enumerate((f"hf://{REPO}", output / "checkpoints/step_00000008")):
        if number:
            weights /= "model.safetensors"
        folder = tmp_path / f"{number}"
        eva("classification", "evaluate", weights, *data, "--output", folder)
        scores.append(json.loads((folder / "results.json").read_text())["sets"])
    assert scores[0] == scores[1]


def _file(path, content):
    path.write_bytes(content)
    return path


def test_what_is_not_published(call_eva, fails, finished, hub, tmp_path):
    output = tmp_path / "run"
    shutil.copytree(finished("classification"), output)
    fails(call_eva("eva", "push", output, REPO, HF_TOKEN="hf_wrong"), "HF_TOKEN")
    hub.private[REPO] = False  # a public repository of that name
    fails(call_eva("eva", "push", output, REPO, "--private", HF_TOKEN=hub.token), REPO)
    for step in output.glob("checkpoints/step_*"):
        file = step / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-100])
    card = tmp_path / "card"
    fails(call_eva("eva", "push", output, REPO, "--dry-run", card), output)
    assert not card.exists()
    fails(call_eva("eva", "push", tmp_path / "nowhere", REPO), tmp_path / "nowhere")
    assert not hub.commits


def test_a_download_that_broke_off_goes_on(documented, hub, tmp_path):
    resolve = documented("eva_backbone", "resolve_source")
    content = bytes(range(256)) * 800
    hub.put(REPO, "folder/weights.pt", content)
    hub.cuts = [90_000]
    with open(resolve(f"hf://{REPO}/folder/weights.pt"), "rb") as file:
        assert file.read() == content
    assert len(hub.gets("weights.pt")) == 2
    commit = hub.commit(REPO)
    hub.put(REPO, "folder/weights.pt", b"newer")
    with open(resolve(f"hf://{REPO}/folder/weights.pt@{commit}"), "rb") as file:
        assert file.read() == content
