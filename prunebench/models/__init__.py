"""Models on disk: load and save, known shapes, uniform layers, conversion, tokenizers."""
