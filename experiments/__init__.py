"""What we measured with driftsim: an experiment is a module, and the folder beside it keeps what it stored."""
