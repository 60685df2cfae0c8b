"""The parts that come with pggan_kit. They use the same entry points and the same contracts as anyone's plugin."""
