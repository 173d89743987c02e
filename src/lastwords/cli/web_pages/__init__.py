"""The pages of ``lastwords web``: a Datasette plugin, its templates, and the server that runs it.

Used by that verb alone; imports Datasette, so nothing else may import it.
It only reads, and leaves no read transaction open between two requests: that would keep the -wal from being emptied.
"""
