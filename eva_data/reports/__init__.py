"""Reports of runs: one HTML page for every training and evaluation of every project."""
