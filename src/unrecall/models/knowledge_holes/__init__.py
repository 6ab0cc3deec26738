"""How the attack on knowledge holes looks for them: probes of each modality, the search, and what it counts."""
