"""The gateway: the dispatcher that is simulated, before a real OpenAI-compatible server; it records as it serves."""
