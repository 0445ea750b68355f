"""Predictions by several processes or machines: Ray carries them, the manifest here remembers."""
