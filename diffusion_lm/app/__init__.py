"""The page: what a visitor asks, sentences that come out of the noise, and their trees."""
