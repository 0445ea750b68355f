"""Several trainings as one: the folds of a cross-validation, the tries of `auto`.

`commission` starts whatever is asked for, and goes on with it; `member` is one training of several;
`folds` and `auto` are a kind each.
"""
