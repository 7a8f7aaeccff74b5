"""Planted faults: each changes one place of the package, and the test suite has to notice.

A table of a few hundred faults, by area, in the modules beside this one. ``python -m tests.mutants`` plants them one by
one in a copy of the repository and runs there the tests that should fail. ``tests/test_mutants.py`` checks in a moment
that every fault still fits the code.
"""
