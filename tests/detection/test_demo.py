"""The demo: what it finds, writes, refuses and skips; complete runs as a program."""

import pytest

from eva_detection import command_line

pytestmark = [
    pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning"),
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning"),
]


def _touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


# --- pictures and predictions ---


# --- what it says ---


# --- the program ---


@pytest.mark.parametrize(
    ("words", "model", "inputs"),
    [
        (["RECIPE", "eva_coco_seg.pth", "a.jpg"], ("RECIPE", "eva_coco_seg.pth"), ["a.jpg"]),
        (["w.pth", "a.jpg", "--config-file", "RECIPE"], ("RECIPE", "w.pth"), ["a.jpg"]),
        (["run", "a.jpg", "0"], (None, "run"), ["a.jpg", "0"]),
    ],
)
def test_a_recipe_and_weights_before_the_images(words, model, inputs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = "demo/cascade_mask_rcnn_vitdet_eva_debug"
    _touch(tmp_path, "a.jpg", "w.pth", "run/config.yaml")
    taken = []
    monkeypatch.setattr(command_line, "run_demo", lambda *_, **more: more["prepare"]())
    monkeypatch.setattr(command_line, "_plan", taken.append)
    command_line.demo([*(word.replace("RECIPE", recipe) for word in words), "--output", "out"])
    (args,) = taken
    assert (args.weights, [*map(str, args.inputs)]) == (model[1], inputs)
    assert str(args.config_file) == (model[0] or "None").replace("RECIPE", recipe)


@pytest.mark.parametrize("words", [["no/run", "x"], ["a.jpg"]])
def test_the_first_word_that_is_no_model_is_named(words, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        command_line.demo([*words, "--output", str(tmp_path)])
    assert end.value.code == 2
    assert words[0] in capsys.readouterr().err
