"""One module a family: its `LAYOUTS` in the checkpoints of other libraries."""
