"""The networks: a registry, shared blocks, and one file a family."""
