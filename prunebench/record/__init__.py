"""One cell's results as one JSON record: its form, and where, when and with what it was made."""
