"""The file: opening, identity, locks, the WAL, SQL, reading only.

The boundary of SQLite: nobody else touches a connection, a lock's ownership, the read lock or SQLite's errors.
Used by append/, upkeep/, delivery/, the engine and the command line; uses record/, runtime/ and errors.
It must never open the database file of a live connection outside SQLite, and never leave a thread running.
"""
