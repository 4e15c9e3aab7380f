"""Two processes of a run: they agree on values and errors, and map what one of them has read."""

from eva_runs.processes import OtherProcessError


def test_two_processes_agree(launch, tmp_path):
    codes, texts = launch("agree", tmp_path, ranks=2)
    assert codes == [0, 0], texts
    first, second = (text.strip().splitlines()[-1] for text in texts)
    other = OtherProcessError.__name__
    assert first == repr([[0, 1], "main", "ZeroDivisionError", other, 1])
    assert second == repr([[0, 1], "main", other, "ZeroDivisionError", 1])
    assert "".join(texts).count("there is no such data") == 1


def test_two_processes_map_what_one_has_read(launch, tmp_path):
    codes, texts = launch("map_arrays", tmp_path, ranks=2)
    assert codes == [0, 0], texts
    assert [text.strip().splitlines()[-1] for text in texts] == ["[]", "[]"]
