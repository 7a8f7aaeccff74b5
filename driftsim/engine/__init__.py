"""Simulated engines; nothing else in driftsim knows SimPy."""
