"""SOPHIA (arXiv 2507.16814): captions of the model's own, reasoned on by another, rewarded, selected and learnt."""
