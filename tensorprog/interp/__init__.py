"""Readings of a program, one a file."""
