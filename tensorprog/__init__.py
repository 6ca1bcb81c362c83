"""tensorprog: how a computation scales with width, derived from the computation itself."""
