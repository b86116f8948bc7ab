"""A campaign's results: jobs' files become records, records become tables. Imports no torch."""
