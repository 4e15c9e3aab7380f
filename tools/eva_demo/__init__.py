"""Demo data: handwritten digits on photographs, in every format that the toolkit reads."""
