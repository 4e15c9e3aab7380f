"""Videos with labels, in the forms in which they lie on disks."""
