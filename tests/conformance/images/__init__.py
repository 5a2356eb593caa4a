"""The images of the tests: their names, what is in them, and how they are packed."""
