"""A plugin beside a run of spectrograms: it writes samples as WAV files, to listen to a stage and to a fade.

A spectrogram has two channels of 32 frequencies (rows, the highest first) by 64 frames (columns): the logarithm of the
magnitude, and how far the frequency in each bin lies from the bin's own, as the change of the phase from frame to frame
in units of pi (Engel et al. 2019, GANSynth, section 2.2, whose instantaneous frequency is this one plus the bin's).
"""

from __future__ import annotations

import io
import wave

import numpy as np

from pggan_kit import (
    Component,
    ConfigError,
    Interval,
    Run,
    Stage,
    Tick,
    check_at_least,
    check_interval,
    hookimpl,
    write_atomically,
)

RATE = 4_000
"""Samples of a second."""

WINDOW = 64
HOP = 16
BINS = 32
FRAMES = 64
SAMPLES = HOP * (FRAMES - 1) + WINDOW
"""Samples of a note: a quarter of a second."""

FLOOR = 1e-3
"""Magnitude that counts as silence, where a frequency means nothing."""

TAPER = np.hanning(WINDOW + 1)[:-1]
CENTRES = 2 * HOP * np.arange(BINS) / WINDOW
"""Change of the phase from frame to frame at each bin's own frequency, in units of pi."""


def make_spectrogram(sound: np.ndarray) -> np.ndarray:
    """Return the spectrogram float32 (2, 32, 64) of a sound (SAMPLES,) in [-1, 1]."""
    frames = np.stack([sound[HOP * i : HOP * i + WINDOW] * TAPER for i in range(FRAMES)], 1)
    spectrum = np.fft.rfft(frames, axis=0)[:BINS]
    magnitude = np.abs(spectrum)

    # The phase of the first frame is lost: nobody hears it.
    change = np.diff(np.angle(spectrum) / np.pi, axis=1, prepend=0) - CENTRES[:, None]
    change[:, 0] = 0
    deviation = (change + 1) % 2 - 1
    deviation[magnitude < FLOOR] = 0
    return np.stack([np.log(magnitude + FLOOR), deviation])[:, ::-1].astype(np.float32)


def make_sound(spectrogram: np.ndarray) -> np.ndarray:
    """Return the sound (SAMPLES,) of a spectrogram (2, h, w) of any stage; a small one is enlarged, pixel by pixel."""
    _, height, width = spectrogram.shape
    whole = spectrogram.repeat(BINS // height, axis=1).repeat(FRAMES // width, axis=2)[:, ::-1].astype(np.float64)
    magnitude = np.maximum(np.exp(whole[0]) - FLOOR, 0)
    change = whole[1] + CENTRES[:, None]
    # Neighbouring bins of one partial begin with opposite phases: others would cancel each other.
    change[:, 0] = np.arange(BINS)
    phase = np.cumsum(change, axis=1)
    spectrum = np.concatenate([magnitude * np.exp(1j * np.pi * phase), np.zeros((1, FRAMES))])

    # Frames overlap, and add up to the sound times the sum of squared tapers.
    sound = np.zeros(SAMPLES)
    weight = np.zeros(SAMPLES)
    for i, frame in enumerate(np.fft.irfft(spectrum, WINDOW, axis=0).T):
        place = slice(HOP * i, HOP * i + WINDOW)
        sound[place] += frame * TAPER
        weight[place] += TAPER**2
    return sound / np.maximum(weight, 1e-2)


def encode_wave(sounds: list[np.ndarray]) -> bytes:
    """Return a WAV file of 16 bits with some sounds, a pause after each."""
    pause = np.zeros(RATE // 8)
    whole = np.concatenate([piece for sound in sounds for piece in (sound, pause)])
    loudest = max(1.0, float(np.abs(whole).max()))
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((whole / loudest * 32767).round().astype("<i2").tobytes())
    return content.getvalue()


class Tones:
    """Files `tones/000012800-8x16-alpha0.50.wav` in the run's folder: the averaged generator's notes of fixed latents.

    Args:
        count: Number of notes in a file.
        every: Images between two files, at ticks; `'phase'` for the ends of fades and stages alone.
    """

    critical = False

    def __init__(self, count: int = 8, every: Interval = "phase") -> None:
        check_at_least("count", count, 1)
        check_interval("every", every)
        self.count = count
        self.every = every

    @hookimpl
    def before_run(self, run: Run) -> None:
        """Check that the images are spectrograms.

        Raises:
            ConfigError: They have another number of channels than two.
        """
        channels = run.state.stage.image_channels
        if channels != 2:
            raise ConfigError(f"observers.Tones makes sound of images with 2 channels, and these have {channels}")

    @hookimpl
    def after_tick(self, run: Run, stage: Stage, tick: Tick) -> None:
        """Write a file where one is due."""
        if not tick.is_due(self.every):
            return
        folder = run.directory / "tones"
        folder.mkdir(exist_ok=True)
        images = run.generate(run.fixed_latents(self.count), run.fixed_labels(self.count))
        sounds = [make_sound(spectrogram) for spectrogram in run.values.to_units(images).numpy()]
        alpha = run.alpha.get("generator", 1.0)
        write_atomically(folder / f"{run.state.images:09d}-{stage.size}-alpha{alpha:.2f}.wav", encode_wave(sounds))


@hookimpl
def components() -> list[Component]:
    """Return the observer, which configs name `observers.Tones`."""
    return [Component("observers", "Tones", Tones)]


def main() -> None:
    """Write notes that `pggan-kit sample --out notes.npy` drew as a WAV file: `python tones.py notes.npy notes.wav`."""
    import sys

    source, target = sys.argv[1:]
    notes = np.load(source).transpose(0, 3, 1, 2)
    with open(target, "wb") as file:
        file.write(encode_wave([make_sound(note) for note in notes]))


if __name__ == "__main__":
    main()
