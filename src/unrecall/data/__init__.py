"""The nouns that pass between rooms: examples, a request over them, and what models said about them."""
