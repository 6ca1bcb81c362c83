"""The open sets: nonlinearities, losses, optimizers, parametrizations; one self-checking record a file."""
