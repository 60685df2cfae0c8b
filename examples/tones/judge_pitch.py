"""Judge by an FFT whether notes have a pitch: `python judge_pitch.py runs/00000-tones/tones --reals tones.npy`.

For each WAV file that the plugin has written, or .npy file of `pggan-kit sample`, one line: how many notes it has, the
share of a note's power that lies at the multiples of one frequency, and how far that frequency is from a key of the
piano (the notes of `scripts/make_tones.py` are on one), both as medians over the notes. Noise has a share of about 0.13
and a distance of 25 cents. Spectrograms of the first stages have few rows, so that not even the data have a pitch
there: the lines `data` have the same numbers of the data, reduced to each size.
"""

from __future__ import annotations

import argparse
import wave
from pathlib import Path

import numpy as np
from tones import BINS, FRAMES, RATE, SAMPLES, make_sound

LOWEST, HIGHEST = 200.0, 700.0
"""Frequencies, in hertz, among which the first partial of a note is searched."""

WIDTH = 12.0
"""Distance from a multiple, in hertz, within which power belongs to it: lines of such short notes are 8 Hz wide."""

PARTIALS = 8
POINTS = 1 << 13


def find_pitch(sound: np.ndarray) -> tuple[float, float]:
    """Return the frequency in hertz whose multiples hold the largest share of a sound's power, and that share."""
    power = np.abs(np.fft.rfft(sound * np.hanning(len(sound)), POINTS)) ** 2
    frequencies = np.fft.rfftfreq(POINTS, 1 / RATE)
    total = power.sum()
    if total == 0:
        return LOWEST, 0.0
    tried = np.geomspace(LOWEST, HIGHEST, 500)
    multiples = np.round(frequencies / tried[:, None])
    near = np.abs(frequencies - multiples * tried[:, None]) <= WIDTH
    near &= (multiples >= 1) & (multiples <= PARTIALS)
    shares = near @ power / total

    # Half of a frequency has all of its multiples too: the highest one counts that is nearly as good.
    good = int(np.flatnonzero(shares >= 0.95 * shares.max())[-1])
    coarse = tried[good]

    # The strongest partial tells the frequency more exactly than the search does.
    partials = np.where(near[good], power, 0)
    peak = int(partials.argmax())
    return float(frequencies[peak] / max(1, round(frequencies[peak] / coarse))), float(shares[good])


def measure_cents(frequency: float) -> float:
    """Return the distance from the nearest key of a piano, in hundredths of a semitone."""
    keys = 12 * np.log2(frequency / 440)
    return float(100 * abs(keys - np.round(keys)))


def read_notes(path: Path) -> list[np.ndarray]:
    """Return the sounds of a WAV file of the plugin, or of an .npy file of spectrograms (N, h, w, 2)."""
    if path.suffix == ".npy":
        return [make_sound(spectrogram) for spectrogram in np.load(path).transpose(0, 3, 1, 2)]
    with wave.open(str(path)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32767
    return list(samples.reshape(-1, SAMPLES + RATE // 8)[:, :SAMPLES])


def describe_notes(name: str, sounds: list[np.ndarray]) -> str:
    """Return a line of a table."""
    found = [find_pitch(sound) for sound in sounds]
    share = np.median([share for _, share in found])
    cents = np.median([measure_cents(frequency) for frequency, _ in found])
    return f"| {name} | {len(sounds)} | {share:.2f} | {cents:.0f} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Judge the pitch of notes.")
    parser.add_argument("notes", type=Path, nargs="+", help="WAV or .npy files, or folders of WAV files")
    parser.add_argument("--reals", type=Path, help="the data, (N, 2, 32, 64)")
    options = parser.parse_args()

    print("| notes | count | share at multiples of one frequency | cents from a key |\n|---|---|---|---|")
    if options.reals is not None:
        reals = np.load(options.reals, mmap_mode="r")[:64]
        for factor in (8, 4, 2, 1):
            size = (BINS // factor, FRAMES // factor)
            reduced = reals.reshape(len(reals), 2, size[0], factor, size[1], factor).mean((3, 5))
            print(describe_notes(f"data, {size[0]}x{size[1]}", [make_sound(one) for one in reduced]))
    for path in options.notes:
        files = sorted(path.glob("*.wav")) if path.is_dir() else [path]
        for file in files:
            print(describe_notes(file.stem, read_notes(file)))


if __name__ == "__main__":
    main()
