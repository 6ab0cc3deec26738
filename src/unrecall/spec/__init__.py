"""Lines of text and the dataclasses that they stand for; what there is to choose from."""
