"""Charts of the numbers of tables: what they show, how they are drawn, and where they go."""
