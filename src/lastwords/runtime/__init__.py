"""What exists once per process: forks, the exit, the recursion guard, stderr, threads, bells, signals, retrying.

Every room may use it; it uses none. Nothing here knows of journals, records or targets.
It must never log, and never keep a lock that a signal handler or a finalizer of the same thread may want.
"""
