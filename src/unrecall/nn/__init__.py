"""What torch.nn lacks: losses, divergences and hooks. Knows no task and no data."""
