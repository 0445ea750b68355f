"""How long a training will take, and what a recipe settles for machine, data and time."""
