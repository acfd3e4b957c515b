"""The parts that searches, studies and cross-validation share."""
