"""Tasks: what turns a user's file into features for a model, and a model's outputs into answers and scores."""
