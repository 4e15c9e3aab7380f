"""What programs on mmengine say on the terminal, and `log.txt` for the rest."""
