"""What arrives, and when; the true output length travels beside the request."""
