"""Many scenarios into a store, and what the store says."""
