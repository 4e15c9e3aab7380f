"""The formats in which the demo data are written."""
