"""The Python surface of mapflow: what `import mapflow` offers is defined in this room."""
