"""How the numbers are shown: tables, terminal, Markdown, plots, page."""
