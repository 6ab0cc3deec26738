"""The one training loop and what goes around it."""
