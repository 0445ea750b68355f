"""What the sections of a report are made of: a run as plain values, drawings, pictures."""
