"""Pages that show what a run found, each a file that needs no other."""
