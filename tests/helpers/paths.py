"""Where the files lie that tests read, wherever a test stands."""

from pathlib import Path

HELPERS = Path(__file__).parent
TESTS = HELPERS.parent
ROOT = TESTS.parent
STUB_PLUGIN = HELPERS / "stub_plugin.py"
ABLATION_PLUGIN = HELPERS / "ablation_plugin.py"
