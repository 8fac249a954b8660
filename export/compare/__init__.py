"""`python -m export compare`: the same checkpoint in every runtime, measured beside itself."""
