"""Read gin files, check their bindings, and build what they describe. No other room imports gin."""
