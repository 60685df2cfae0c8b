"""`python -m pggan_kit` is `pggan-kit`."""

from pggan_kit.cli import main

main()
