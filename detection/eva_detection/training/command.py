"""Command line of `train_net.py`; everything heavy is imported when the options are known."""

from collections.abc import Sequence

from eva_detection.config.early import check_early
from eva_detection.config.parser import make_parser
from eva_runs.command_line.slips import end_program
from eva_runs.commands import program_name


def main(arguments: Sequence[str] | None = None) -> None:
    """Train or evaluate; exits with 75 if a signal stopped it after a checkpoint.

    Args:
        arguments: Arguments; by default the process's.

    Raises:
        SystemExit: If it does not succeed; the reason was printed.
    """
    args = make_parser().parse_args(arguments)
    try:
        check_early(args)
    except (OSError, ValueError) as error:
        raise end_program(program_name("train_net.py"), error) from error
    from eva_detection.training.train import start

    start(args)


if __name__ == "__main__":
    main()
