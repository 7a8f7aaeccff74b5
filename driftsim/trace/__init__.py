"""What happened: the header and the tables of a run, in memory and on disk."""
