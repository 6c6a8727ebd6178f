"""What labels text: part-of-speech taggers and constituency parsers."""
