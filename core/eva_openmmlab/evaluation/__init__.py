"""What the reports of runs on mmengine have in common."""
