"""driftsim: which scheduler for a multi-tenant LLM server, and is correcting the token-budget estimates worth it?

``driftsim.run.simulate`` turns a workload into a trace, ``driftsim.compare.compare`` sets schedulers side by side.
Nothing is imported here, so that ``driftsim --help`` answers at once.
"""

__version__ = "0.1.0"
