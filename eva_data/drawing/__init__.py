"""Pictures for people: objects, masks and label maps on them, words, contact sheets."""
