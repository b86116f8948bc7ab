"""Quality: perplexity protocols, and zero-shot accuracy through lm-eval."""
