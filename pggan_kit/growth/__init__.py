"""Networks that grow, and the fade between two stages."""
