"""What every run promises: data order, signals, output folder, exit codes, and its record."""

try:
    import fcntl  # noqa: F401
    import resource  # noqa: F401
except ImportError:
    raise SystemExit(
        "trainings and commands need Linux or macOS (on Windows: WSL); eva_backbone runs anywhere"
    ) from None
