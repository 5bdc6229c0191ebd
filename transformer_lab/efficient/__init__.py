"""Attention that costs less, or does without: each in a module of its own."""
