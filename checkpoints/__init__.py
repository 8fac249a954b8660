"""One in-memory form of a BERT checkpoint and its file forms; needs neither tensorflow nor torch."""
