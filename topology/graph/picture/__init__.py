"""The fleet as a drawing."""
