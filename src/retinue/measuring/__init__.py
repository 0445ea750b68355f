"""How fast the parts of the work are, on the machine at hand."""
