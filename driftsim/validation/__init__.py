"""A recorded run beside its simulation."""
