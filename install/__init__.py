"""Programs that the Makefile calls to set a virtual environment up."""
