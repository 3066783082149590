"""Measures of explanations: transparent, lexical, for English."""
