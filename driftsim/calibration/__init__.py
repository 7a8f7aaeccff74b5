"""Recorded runs become a profile."""
