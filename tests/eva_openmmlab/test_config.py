"""Settings that are read, the config of a run, and plug-ins that print nothing."""

import pytest

from eva_openmmlab.config import load_config
from eva_openmmlab.predictor import load_model
from eva_openmmlab.run_folder import config_of_run, write_record
from eva_runs.recipes import find_recipe


def merged(**settings):
    recipe = find_recipe("segmentation", "ade20k/mask2former_eva_g_896_20k")
    return load_config(recipe, {key.replace("__", "."): value for key, value in settings.items()})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("randomness__seed", 1),
        ("find_unused_parameters", True),
        ("auto_scale_lr__enable", True),
        ("custom_hooks", None),
        ("optim_wrapper__clip_grad__max_norm", 0.5),
        ("train_dataloader__drop_last", False),
        ("param_scheduler__0__power", 0.9),
        ("model__backbone__n_points", [2, (3, "x")]),
        ("resume", True),
    ],
)
def test_what_the_runner_the_loaders_and_constructors_read_is_merged(name, value):
    node = merged(**{name: str(value).replace("'", "").replace(" ", "")})
    for part in name.split("__"):
        node = node[int(part) if part.isdigit() else part]
    assert node == value


@pytest.mark.parametrize("name", ["randomnes__seed", "learning_rate", "param_scheduler__1__power"])
def test_what_nothing_reads_is_refused(name):
    with pytest.raises(ValueError, match=name.replace("__", r"\.")):
        merged(**{name: "1"})


def test_only_the_config_that_a_record_names_is_of_a_run(tmp_path):
    ran = tmp_path / "ran"
    (tmp_path / "other.py").write_text(f"open({str(ran)!r}, 'w')")
    (tmp_path / "mine.py").write_text("name = '{{ fileBasename }}'\n")
    weights = tmp_path / "iter_3.pth"
    weights.write_bytes(b"")
    assert config_of_run(tmp_path) is config_of_run(weights) is None
    with pytest.raises(ValueError, match=r"no config of a run"):
        load_model(weights, None, "cpu", task="segmentation")
    for name in ("../other.py", "none.py"):
        write_record(tmp_path, name)
        assert config_of_run(tmp_path) is None
    write_record(tmp_path, "mine.py")
    assert config_of_run(tmp_path) == config_of_run(weights) == tmp_path / "mine.py"
    assert load_config(tmp_path / "mine.py").name == "{{ fileBasename }}"  # as it was saved
    assert not ran.exists()
