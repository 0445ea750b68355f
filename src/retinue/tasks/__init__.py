"""What can be recognised: a folder a task, and the frame knows each by its `Task` alone."""
