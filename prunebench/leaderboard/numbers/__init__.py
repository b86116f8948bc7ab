"""Records as frames of numbers, with errors, differences and ranks."""
