"""Pressing: a workload under several loads, drawn several times, and its runs, kept in a store."""
