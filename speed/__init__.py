"""Speed, as ratios: each file runs unrecall and its rival, a bare loop or a peer, side by side in one process."""
