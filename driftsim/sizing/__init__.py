"""Sizing: the load up to which SLOs hold, and what another engine or scheduler would add to it."""
