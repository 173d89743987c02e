"""Entries to the target, in order, and the mark after it: courier, loop, verdict (pure), lease.

Used by the engine and by the command line. Uses journal/, record/, runtime/ and the contract of targets/.
It must never hold a lock of the journal's, a handler's or logging's while it calls a target.
"""
