"""Dead letters out of the table and into it: files that move between environments, and what other tools left."""
