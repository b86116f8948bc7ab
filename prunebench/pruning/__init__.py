"""What can be removed, what is kept, and the cut: structures, families, scores, surgery."""
