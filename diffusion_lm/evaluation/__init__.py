"""Measures of generated text, beside human text under the same judge."""
