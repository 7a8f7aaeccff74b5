"""A scenario and a workload become a trace."""
