"""The ends of test_ends.py in groups, for the matrix in README."""

GROUPS = {
    "by itself": [
        "falls off the end", "drains", "closes", "forgets the handler", "raises", "sys.exit",
        "sys.exit in a thread, main thread ends first", "logging.shutdown is called by hand",
        "dictConfig replaces the handlers", "several handlers and threads end at once",
    ],
    "last words": [
        "logs last in an atexit callback", "logs last in an atexit callback that runs after ours",
        "logs in sys.excepthook", "logs in threading.excepthook", "a daemon thread logs while the interpreter ends",
        "a __del__ logs",
    ],
    "signals": [
        "SIGTERM with its default action", "SIGTERM handler logs and exits", "SIGTERM handler logs and os._exit", "SIGINT",
    ],
    "no chance to finish": ["SIGKILL", "os._exit", "segfault", "abort", "execs another program"],
    "forks": [
        "os.fork, parent ends first", "os.fork, child ends first", "os.fork, the child leaves by os._exit",
        "multiprocessing fork", "daemonizing by double fork", "spawn", "forkserver",
    ],
}  # fmt: skip
