"""A LogRecord to one row of text and back: pure, total, never executing.

Used by whoever holds a record or an entry. Uses runtime/ only; no connection, no thread, no file but the source
lines of a traceback.
It must never raise for a value that an application logs, and never run code because a journal says so.
"""
