"""Numbers from runs: no Markdown, no figures."""
