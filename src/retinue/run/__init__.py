"""The folder of a run: what a training leaves in it, and finds there again."""
