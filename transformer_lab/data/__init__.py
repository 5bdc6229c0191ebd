"""The data of the book: what is made up by rule, and what is fetched, checked and read."""
