"""The base models: where they come from, their tokenizers, their adapters."""
