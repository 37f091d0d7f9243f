"""Sets from outside the kit: photographs, tables of rows, JSONL files."""
