"""Pictures for people: letters on them, and contact sheets."""
