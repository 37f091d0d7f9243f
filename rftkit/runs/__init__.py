"""Run folders on disk: their names and files, their log, which belong together."""
