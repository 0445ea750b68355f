"""Trained models in other programs' forms."""
