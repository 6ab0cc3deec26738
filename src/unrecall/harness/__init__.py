"""An audit: all models of one setting are measured and attacked alike, side by side."""
