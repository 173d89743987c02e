"""The command line: one module per verb; ``main`` finds them, ``options`` and ``output`` are shared."""
