"""Test the account of what compiling costs and saves."""

from __future__ import annotations

from pggan_kit.training.payback import PassSeconds, Payback


def test_compiling_pays_once_it_has_saved_what_it_cost() -> None:
    """Two passes a step: 1/16 + 1/32 s eagerly, half of it compiled. Such numbers add up exactly."""
    lines: list[str] = []
    payback = Payback("14x14 (fade)", 1_000, lines.append)
    payback.add_compiling(6.0)
    payback.add_compiling(3.375)
    for step in range(300):
        images = 1_000 + 32 * step
        assert lines == [] or step > 199
        payback.add_pass(PassSeconds(1 / 16, 1 / 32), images)
        payback.add_pass(PassSeconds(1 / 32, 1 / 64), images)
    # 200 steps save 9.375 s; the last of them began at 1,000 + 199 * 32 images.
    (line,) = lines
    assert line.startswith("compiling at 14x14 (fade) has paid for itself after 6,368 images (")
    assert line.endswith("(9 s for compiling; 47 ms against 94 ms a step)")
    payback.close(20_000)
    assert len(lines) == 1


def test_compiling_again_has_to_pay_again() -> None:
    lines: list[str] = []
    payback = Payback("7x7 (stable)", 0, lines.append)
    payback.add_compiling(1.0)
    payback.add_pass(PassSeconds(2.0, 0.5), 0)
    payback.add_compiling(10.0)
    payback.add_pass(PassSeconds(2.0, 0.5), 4)
    assert len(lines) == 1
    payback.close(8)
    assert lines[1].startswith("compiling at 7x7 (stable) did not pay for itself in 8 images (")
    assert lines[1].endswith("(11 s for compiling; 500 ms against 2,000 ms a step)")


def test_steps_that_are_not_faster_never_pay() -> None:
    lines: list[str] = []
    payback = Payback("7x7 (stable)", 0, lines.append)
    payback.close(0)
    assert lines == [], "nothing was compiled"
    payback.add_compiling(1.0)
    for step in range(100):
        payback.add_pass(PassSeconds(0.010, 0.012), 4 * step)
    payback.close(400)
    (line,) = lines
    assert line.startswith("compiling at 7x7 (stable) did not pay for itself in 400 images (1 s for compiling; 12 ms")
    assert line.endswith("10 ms a step): compiled steps are not faster here")
