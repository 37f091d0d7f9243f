"""The drawn tasks: math, puzzle and spatial, their scenes and levels."""
