"""Configs in files: what a run saves comes back, and nothing in YAML runs."""

import pytest
from detectron2.config import LazyConfig
from omegaconf import OmegaConf

from eva_detection.config.files import MODULES_VARIABLE, literal, load_config_file
from eva_detection.config.settings import load_recipe

# Each would make the file PROOF, when read or instantiated.
COMMANDS = {
    "a constructor": "!!python/object/apply:os.system ['touch PROOF']",
    "a function's partial": (
        "!!python/object/apply:functools.partial {args: [&f !!python/name:os.system ''], "
        "state: !!python/tuple [*f, !!python/tuple ['touch PROOF'], {}, null]}"
    ),
    "a target": "{_target_: os.system, command: touch PROOF}",
    "a target through a known module": (
        "{_target_: detectron2.engine.defaults.os.system, command: touch PROOF}"
    ),
    "a target that returns one": (
        "{_target_: {_target_: detectron2.utils.registry.locate, name: os.system}, "
        "command: touch PROOF}"
    ),
    "a target inside a partial": (
        "!!python/object/apply:functools.partial {args: [&f !!python/name:eva_detection.data."
        "datasets.repeat_factors ''], state: !!python/tuple [*f, !!python/tuple [], "
        "{x: {_target_: os.system, command: touch PROOF}}, null]}"
    ),
    "a target that a resolver makes": (
        """'${oc.create:{_target_: os.system, command: "touch PROOF"}}'"""
    ),
    "an argument of a known function": (
        "{_target_: eva_detection.config.recipes.stock_config, name: ../../../evil.py}"
    ),
    "proposals, which are pickles": (
        "{_target_: detectron2.data.get_detection_dataset_dicts, names: x, proposal_files: [PROOF]}"
    ),
    "proposals, through detectron2's old config": (
        "{_target_: detectron2.data.build_detection_test_loader, dataset_name: [x], "
        "cfg: {MODEL: {LOAD_PROPOSALS: true}, DATASETS: {PROPOSAL_FILES_TEST: [PROOF]}}}"
    ),
    "proposals, by position": (
        "!!python/object/apply:functools.partial {args: [&f !!python/name:"
        "detectron2.data.build.get_detection_dataset_dicts ''], state: !!python/tuple [*f, "
        "!!python/tuple [[x], true, 0, [PROOF]], {}, null]}"
    ),
    "a dunder": "{_target_: eva_detection.training.optimizer.ClippedAdamW.__init__}",
    "a module": "!!python/module:os",
}


@pytest.mark.parametrize("value", COMMANDS.values(), ids=COMMANDS)
def test_nothing_in_yaml_runs(value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "config.yaml"
    file.write_text(f"model: {value}\n")
    with pytest.raises(ValueError, match=r"config\.yaml is not a config: "):
        load_recipe(str(file))
    assert [file.name for file in tmp_path.iterdir()] == ["config.yaml"]


def test_modules_are_not_imported_to_look(tmp_path, monkeypatch):
    (tmp_path / "mine_alone.py").write_text("open('PROOF', 'w').close()\ndef build(): return 3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "config.yaml").write_text("model: {_target_: mine_alone.build}\n")
    with pytest.raises(ValueError, match=f"names mine_alone.build, .*{MODULES_VARIABLE}"):
        load_config_file("config.yaml")
    assert not (tmp_path / "PROOF").exists()
    monkeypatch.setenv(MODULES_VARIABLE, "mine_alone, another")
    assert load_config_file("config.yaml").model._target_ == "mine_alone.build"


@pytest.mark.parametrize(
    "name",
    [
        "lvis/cascade_mask_rcnn_vitdet_eva_g_1536",
        "demo/cascade_mask_rcnn_vitdet_eva_debug",
    ],
)
def test_what_a_run_saves_comes_back(load_config, name, tmp_path):
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    LazyConfig.save(load_config(name), str(first))
    LazyConfig.save(load_config_file(first), str(second))
    assert second.read_text() == first.read_text()


NAMES = ["${oc.env:HOME}", r"\\${x}", "a${b}c${d}", "${", "${${x}}", "back\\", "no", "é: \n'\"#"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("load", [load_config_file, lambda file: LazyConfig.load(str(file))])
def test_names_of_classes_are_not_config_language(name, load, tmp_path):
    """Also as detectron2's own program reads the file."""
    cfg = OmegaConf.create({"names": {3: literal(name)}, "same": "${names}"})
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    for one in (cfg, load(tmp_path / "config.yaml")):
        assert one.names[3] == one.same[3] == name
        assert OmegaConf.to_container(one, resolve=True)["names"] == {3: name}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a LazyConfig"),
        ("a: [", "while parsing"),
        ("a: &a [*a]", "config.yaml"),
        ("a: " + "[" * 3000 + "]" * 3000, "config.yaml is not a config"),
        ("a: " + "x" * 5_000_000, "5,000,0.. bytes"),
        (
            "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n"
            + "".join(f"a{i}: &a{i} [{','.join(10 * [f'*a{i - 1}'])}]\n" for i in range(1, 9)),
            "config.yaml",
        ),
    ],
)
def test_yaml_that_is_not_a_config(text, message, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_config_file(file)
