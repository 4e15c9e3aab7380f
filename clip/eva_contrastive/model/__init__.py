"""The two towers, their weights and other projects' forms of them."""
