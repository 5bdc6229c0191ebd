"""Exercises of the book, chapter by chapter: ``from transformer_lab.exercises import attention as ex``."""

from .check.progress import progress as progress
