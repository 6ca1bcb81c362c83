"""One nonlinearity (or one family of them) a file, named like it."""
