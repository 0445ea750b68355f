"""Several trainings as one: the folds of a cross-validation, the tries of `auto`, the trials of a
sweep.

`commission` starts whatever is asked for, and goes on with it; `member` is one training of several;
`folds`, `auto` and `sweep` are a kind each.
"""
