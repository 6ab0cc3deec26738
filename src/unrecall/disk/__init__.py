"""Files that are whole or absent: text, weights, the cache, the folder of a run."""
