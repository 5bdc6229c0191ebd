"""Whole models, small enough to read on one screen and to train in a minute."""
