"""The command line: one module per verb; ``main`` finds them, ``options`` and ``output`` are shared.

Used by the program ``lastwords`` and ``python -m lastwords``, never by the application. Uses all rooms below.
A verb must never show a traceback, a credential or a raw escape sequence on a terminal, nor import what is heavy for
``--help``; and only one that says so changes a journal.
"""
