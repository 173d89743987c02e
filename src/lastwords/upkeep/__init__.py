"""The keeper, which syncs and tidies, and what was damaged or removed on its way back into the journal.

Used by the engine and by the command line's repairs. Uses append/, journal/, runtime/.
It must never take the lease and never call a target: a hung target must stop neither sync nor tidying.
"""
