"""Nano: draws the bundled worlds and pre-trains the bundled models."""
