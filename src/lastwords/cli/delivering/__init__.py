"""What flush, replay and courier share: which journals, which target, how long, and what became of it.

Used by those verbs. Uses the rooms below, never another verb.
"""
