"""From exponents to parametrizations: derive, classify, explain."""
