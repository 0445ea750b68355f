"""Where weights come from, and how they become ours."""
