"""check=true: what each entry script would do, and all that is wrong, without doing it.

Each of `generate`, `evaluate` and `train` has `check(cfg) -> (lines, problems)`: what can be built cheaply is
built, files are looked at, and the errors are gathered instead of raised. Nothing is written or fetched.
"""
