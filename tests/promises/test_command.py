"""The command `eva`: help, recipes, weights, exit codes."""


def test_help_is_immediate_and_needs_no_framework(measure):
    seconds, ended = measure("--help")
    assert ended.code == 0
    assert ended.names("detection", "segmentation", "doctor")
    assert seconds < 0.5
