"""Take training steps in every way there is, and run the loop around them."""
