"""Tokens: what a vocabulary holds, its English part, how words are cut, what thinking mode adds."""
