"""Kinds of what is known of an image. Each is one file, and nothing else knows what is in it but
the tasks that learn from it."""
