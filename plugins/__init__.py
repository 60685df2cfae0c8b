"""The components that ship with pggan_kit. They use the same entry points and contracts as third-party plugins."""
