"""The fuzz suite: whatever stands in a file, a verb ends with exit 0, 1 or 2 and at most one line of error.

``mutations`` makes sound files wrong, ``targets`` lists the readers, ``laws`` says what nobody may accept, and
``harness`` runs a verb and tells what it did wrong.
"""
