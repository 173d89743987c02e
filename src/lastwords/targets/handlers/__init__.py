"""Handlers of logging and of others as targets: ``wrap`` finds the adapter that knows when each really failed.

Used by ``targets.resolve``. An adapter may be imported only when its handler is there: it imports no package for it.
"""
