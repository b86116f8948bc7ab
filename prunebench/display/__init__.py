"""What a person sees while a campaign runs: cells as they end, what runs, the time that is left."""
