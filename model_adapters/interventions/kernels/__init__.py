"""Attention functions, and the forms in which they take a layer's allowed edges."""
