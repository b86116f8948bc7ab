"""What papers published, and verdicts on it."""
