"""What an audit leaves behind, and what follows from it: statistics, verdict, doubts, rechecks. Needs no torch."""
