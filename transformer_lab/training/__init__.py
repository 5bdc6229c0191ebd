"""Data and training loops for the book's models."""
