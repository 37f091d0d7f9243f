"""Tasks: what is asked and how an answer is judged. A new set goes here."""
