"""Reports of findings are written completely or not at all."""

import json

from eva_data.checks import findings


def test_long_lists_are_written_completely(tmp_path, monkeypatch):
    monkeypatch.setattr(findings, "WRITTEN_AT_ONCE", 3)
    data = {"a": list(range(7)), "b": [], "c": {"d": [1.5, None]}, "e": [[1]] * 3}
    findings.write_json(tmp_path / "out.json", data)
    assert json.loads((tmp_path / "out.json").read_text()) == data
