"""How long a step takes, and the profile that says so."""
