"""GRPO with prompt and picture computed once a group, same numbers as stock TRL."""
