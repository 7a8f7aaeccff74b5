"""The published study (arXiv 2606.02982), rerun without its GPU and taken apart."""
