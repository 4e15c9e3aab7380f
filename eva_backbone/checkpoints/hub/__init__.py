"""Files of the Hugging Face hub: addresses, downloads, and what goes wrong with them."""
