"""Words in any order, and what a setting is."""

import pytest

from eva_runs.command_line.any_order import AnyOrderParser, is_setting


def test_settings_have_a_name_and_are_not_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=0.1.pth").touch()
    words = ["a=1", "--run.epochs=3", "my-key.b_c=", f"names={'x' * 300}", "a=\0"]
    assert all(map(is_setting, words))
    assert not any(map(is_setting, ["a", "=1", "runs/lr=3", "lr=0.1.pth", "~a"]))


@pytest.mark.parametrize("flag", [None, "--set"])
def test_words_are_sorted(flag):
    parser = AnyOrderParser()
    parser.settings_flag = flag
    if flag:
        parser.add_argument(flag, nargs="+")
    parser.add_argument("--count", type=int)
    parser.add_argument("--quiet", action="store_true")
    words = ["recipe", "a=1", "--count", "-1", "--quiet", "b=2", "-", "--", "--c=3"]
    found = parser.sorted_words(words)
    assert found.flags == ["--count", "-1", "--quiet"]
    assert found.settings == ["a=1", "b=2", *([] if flag else ["--c=3"])]
    assert found.others == ["recipe", "-", *(["--c=3"] if flag else [])]
