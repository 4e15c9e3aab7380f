"""`eva doctor`: what is installed, missing and broken, without network."""
