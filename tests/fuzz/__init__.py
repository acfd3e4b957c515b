"""Random draws against the float64 reference: `python -m tests.fuzz`."""
