"""Looking into models: what they answer, their layers, perturbed inputs, importance and influence."""
