"""Images without labels: folders, tar shards, and manifests that merge them, with an index."""
