"""How a packet walks: stages and tables, the fields it carries, the words in which apps write flows."""
