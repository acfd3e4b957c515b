"""Checks whether a model, its loss and its data fit each other."""
