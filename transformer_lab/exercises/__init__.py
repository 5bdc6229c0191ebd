"""Exercises of the book, chapter by chapter: ``from transformer_lab.exercises import attention as ex``."""

from .progress import progress as progress
