"""What every run promises: data order, signals, output folder, exit codes, and its record."""
