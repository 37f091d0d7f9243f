"""`rftkit bench`: our training step beside stock TRL's."""
