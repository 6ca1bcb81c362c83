"""The command line: reading arguments (specs, options), the verbs, and printing (output)."""
