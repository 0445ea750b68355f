"""The frozen part of a network: what it gives for a view of an image, computed once and kept."""
