"""Schedulers side by side on one workload."""
