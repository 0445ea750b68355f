"""Reads a run folder and says what happened in it: plots and one self-contained HTML page."""
