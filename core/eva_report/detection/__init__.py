"""Reports and demos of detectors."""
