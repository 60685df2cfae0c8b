"""Synthesise notes, and write their spectrograms as an array for `experiments/tones_spectrogram.gin`.

    python scripts/make_tones.py tones.npy

A note has a pitch from A3 to E5, up to eight harmonics that fall off at a rate of its own, an attack and a decay. The
file holds float32 (n, 2, 32, 64): see `examples/tones/tones.py`, which also turns spectrograms back into sound. Nothing
is downloaded, and note i is always the same.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np

LOWEST, HIGHEST = 57, 76
"""Pitches as numbers of MIDI, of which 69 is 440 Hz."""

HARMONICS = 8


def load_plugin() -> ModuleType:
    """Load the plugin file that has the transform."""
    path = Path(__file__).parents[1] / "examples" / "tones" / "tones.py"
    spec = importlib.util.spec_from_file_location("tones", path)
    assert spec is not None and spec.loader is not None, "a .py file has a loader"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TONES = load_plugin()


def compute_frequency(pitch: float) -> float:
    """Return the frequency of a pitch, in hertz."""
    return 440.0 * 2 ** ((pitch - 69) / 12)


def make_note(number: int) -> tuple[np.ndarray, int]:
    """Return the sound (SAMPLES,) of a note in [-1, 1], and its pitch."""
    rng = np.random.default_rng((1, number))
    pitch = int(rng.integers(LOWEST, HIGHEST + 1))
    frequency = compute_frequency(pitch)
    fall = rng.uniform(0.5, 2.5)
    decay = rng.uniform(2.0, 20.0)
    attack = rng.uniform(0.002, 0.03)
    time = np.arange(TONES.SAMPLES) / TONES.RATE

    sound = np.zeros(TONES.SAMPLES)
    for harmonic in range(1, HARMONICS + 1):
        # Nothing above half of the rate, and higher harmonics decay sooner.
        if harmonic * frequency < 0.45 * TONES.RATE:
            envelope = np.exp(-decay * time * harmonic**0.5) * harmonic**-fall
            sound += envelope * np.sin(2 * np.pi * harmonic * frequency * time + rng.uniform(0, 2 * np.pi))
    sound *= np.minimum(time / attack, 1.0)
    return sound / np.abs(sound).max() * rng.uniform(0.5, 1.0), pitch


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description="Write spectrograms of synthetic notes.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--count", type=int, default=4_000)
    options = parser.parse_args()
    np.save(options.file, np.stack([TONES.make_spectrogram(make_note(i)[0]) for i in range(options.count)]))
    print(f"wrote {options.count} spectrograms to {options.file}")


if __name__ == "__main__":
    main()
