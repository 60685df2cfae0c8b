"""Test the scripts that make data for experiments: notes with a pitch, and fields with a spectrum."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from helpers.modules import load_module
from helpers.paths import ROOT

from pggan_plugins.metrics.spectrum import compute_radial_spectra


@pytest.fixture(scope="module")
def tones() -> ModuleType:
    return load_module(ROOT / "scripts" / "make_tones.py")


def test_notes_sound_at_their_pitch(tones: ModuleType) -> None:
    pitches = set()
    for number in range(8):
        sound, pitch = tones.make_note(number)
        pitches.add(pitch)
        assert 0.5 <= np.abs(sound).max() <= 1
        rebuilt = tones.TONES.make_sound(tones.TONES.make_spectrogram(sound))
        for wave in (sound, rebuilt):
            power = np.abs(np.fft.rfft(wave * np.hanning(len(wave)), 1 << 15))
            peak = np.argmax(power) * tones.TONES.RATE / (1 << 15)
            # The strongest harmonic may be another than the first.
            ratio = peak / (440 * 2 ** ((pitch - 69) / 12))
            assert abs(ratio - round(ratio)) < 0.01, (number, pitch, peak)
    assert len(pitches) > 4


def test_fields_have_the_spectrum_that_is_stated() -> None:
    fields = load_module(ROOT / "scripts" / "make_random_fields.py")
    drawn = np.stack([fields.make_field(number) for number in range(400)])
    assert drawn.dtype == np.float32 and drawn.std() == pytest.approx(1, abs=0.01)
    measured = compute_radial_spectra(torch.from_numpy(drawn)[:, None]).mean(0)

    # The stated law, averaged over the same rings.
    stated = torch.from_numpy(fields.compute_spectrum())
    rows = torch.fft.fftfreq(64, dtype=torch.float64) * 64
    rings = torch.hypot(rows[:, None], rows).round().long().flatten()
    expected = torch.zeros(len(measured), dtype=torch.float64).index_add_(0, rings, stated.flatten())
    expected /= torch.bincount(rings)
    assert measured[0] == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(measured[1:], expected[1:], rtol=0.15)


@pytest.mark.parametrize(
    ("script", "shape"), [("make_tones.py", (3, 2, 32, 64)), ("make_random_fields.py", (3, 64, 64))]
)
def test_the_scripts_write_arrays(
    script: str,
    shape: tuple[int, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As `python scripts/NAME.py FILE --count 3` does, without a start of Python, which imports torch."""
    monkeypatch.setattr(sys, "argv", [script, str(tmp_path / "a.npy"), "--count", "3"])
    runpy.run_path(str(ROOT / "scripts" / script), run_name="__main__")
    assert capsys.readouterr().out.startswith("wrote 3 ")
    assert (np.load(tmp_path / "a.npy").shape, np.load(tmp_path / "a.npy").dtype) == (shape, np.float32)
