"""Tests of the plugin: its suite, sounds that come back from spectrograms, and a run that can be listened to."""

import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from judge_pitch import describe_notes, find_pitch, measure_cents, read_notes
from tones import HOP, RATE, SAMPLES, Tones, encode_wave, make_sound, make_spectrogram

import pggan_kit
from pggan_kit import ConfigError
from pggan_kit.testing import ObserverSuite

HERE = Path(__file__).parent
SHORT = [
    "schedule.sizes = ((4, 8), (8, 16))",
    "schedule.fade_images = 64",
    "schedule.stable_images = 32",
    "schedule.batch_size = 8",
    "architectures.PGGAN.channels = 4",
    "train.tick = 32",
    "train.observers = [@observers.Tones()]",
    "observers.Tones.count = 2",
    "observers.Tones.every = 32",
]


class Noise:
    """Images of noise with two channels, as the suite needs them."""

    classes = 0

    def __len__(self) -> int:
        return 16

    def image(self, i: int) -> np.ndarray:
        return np.random.default_rng(i).integers(0, 256, (8, 8, 2), np.uint8)

    def label(self, i: int) -> int:
        return 0

    def fingerprint(self) -> str:
        return "noise"


class TestTones(ObserverSuite):
    bad_arguments = ({"count": 0}, {"every": "second"})

    def make(self) -> Tones:
        return Tones(count=2)

    def choose_arguments(self, component: Tones) -> dict[str, Any]:
        return {**super().choose_arguments(component), "dataset": Noise()}


def measure_pitch(sound: np.ndarray) -> float:
    """Return the frequency with the most power, in hertz."""
    power = np.abs(np.fft.rfft(sound * np.hanning(len(sound)), 1 << 15))
    return float(np.argmax(power)) * RATE / (1 << 15)


@pytest.mark.parametrize("frequency", [220.0, 311.1, 440.0, 659.3])
def test_a_spectrogram_keeps_the_pitch(frequency: float) -> None:
    time = np.arange(SAMPLES) / RATE
    sound = 0.8 * np.sin(2 * np.pi * frequency * time) * np.exp(-5 * time)
    spectrogram = make_spectrogram(sound)
    assert (spectrogram.shape, spectrogram.dtype) == ((2, 32, 64), np.float32)
    assert measure_pitch(make_sound(spectrogram)) == pytest.approx(frequency, abs=1)
    rebuilt = make_sound(spectrogram)
    quarter = slice(SAMPLES // 4, SAMPLES // 2)
    assert np.std(rebuilt[quarter]) == pytest.approx(np.std(sound[quarter]), rel=0.03)

    # Half as large, the pitch is off by some of the 62 Hz between two bins.
    half = spectrogram.reshape(2, 16, 2, 32, 2).mean((2, 4))
    assert measure_pitch(make_sound(half)) == pytest.approx(frequency, abs=62.5)


def test_a_run_writes_the_notes_of_a_fade(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGGAN_KIT_CACHE", str(tmp_path / "cache"))
    time = np.arange(SAMPLES) / RATE
    notes = [0.5 * np.sin(2 * np.pi * (220 + 20 * i) * time) for i in range(12)]
    np.save(tmp_path / "tones.npy", np.stack([make_spectrogram(note) for note in notes]))
    bindings = [*SHORT, f"TONES = '{(tmp_path / 'tones.npy').as_posix()}'"]
    run = pggan_kit.train(HERE / "tones.gin", bindings, plugins=[HERE / "tones.py"], run_dir=tmp_path / "run")
    names = [path.name for path in sorted((run.directory / "tones").iterdir())]
    assert names[0] == "000000032-4x8-alpha1.00.wav" and names[-1] == "000000128-8x16-alpha1.00.wav"
    alphas = [name.split("alpha")[1] for name in names if "8x16" in name]
    assert len(alphas) > 2 and alphas[0] < "0.60", "the fade can be heard"
    with wave.open(str(run.directory / "tones" / names[-1])) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (RATE, 1, 2)
        assert file.getnframes() == 2 * (SAMPLES + RATE // 8)


def test_photographs_make_no_sound(tmp_path: Path) -> None:
    bindings = [*SHORT, "schedule.sizes = (7, 14)", "train.observers = [@observers.Tones()]"]
    with pytest.raises(ConfigError, match=r"observers\.Tones makes sound of images with 2 channels, and these have 1"):
        pggan_kit.train(
            HERE / "../../experiments/mnist.gin", bindings, plugins=[HERE / "tones.py"], run_dir=tmp_path / "run"
        )


@pytest.mark.parametrize("keys", [-12, -3, 0, 7])
@pytest.mark.parametrize("first", [1.0, 0.2])
def test_the_pitch_of_a_note_is_found(keys: int, first: float, tmp_path: Path) -> None:
    """Also where the second partial is the strongest one, and in a file that the plugin has written."""
    time = np.arange(SAMPLES) / RATE
    frequency = 440 * 2 ** (keys / 12)
    sound = first * np.sin(2 * np.pi * frequency * time) + 0.6 * np.sin(4 * np.pi * frequency * time + 1)
    (tmp_path / "a.wav").write_bytes(encode_wave([sound, sound]))
    for note in (sound, *read_notes(tmp_path / "a.wav")):
        found, share = find_pitch(note)
        assert share > 0.95 and found == pytest.approx(frequency, rel=2e-3)
        assert measure_cents(found) < 4 and measure_cents(found * 2 ** (1 / 24)) > 46


def test_noise_has_no_pitch() -> None:
    noise = np.random.default_rng(0).normal(size=(6, SAMPLES))
    shares = [find_pitch(sound)[1] for sound in noise]
    assert max(shares) < 0.35 and find_pitch(np.zeros(SAMPLES))[1] == 0
    assert describe_notes("noise", list(noise)).startswith(f"| noise | 6 | {np.median(shares):.2f} | ")


def test_loud_sounds_are_not_clipped() -> None:
    content = np.frombuffer(encode_wave([np.linspace(-4, 2, HOP)])[44:], "<i2")
    assert content.min() == -32767 and content[HOP - 1] == pytest.approx(32767 / 2, abs=1)
