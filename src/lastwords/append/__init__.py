"""A record is in the journal when the call that logged it returns, or counted in the memory buffer.

Used by the engine, and by upkeep/, which commits what waits in memory. Uses journal/, record/, runtime/.
It must never call a target, never checkpoint, and never raise into the application for a journal's sake.
"""
