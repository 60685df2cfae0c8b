"""Growth policies under which everything learns, at one speed or at several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pggan_kit import (
    ENCODER,
    MOMENTS,
    NETS,
    ConfigError,
    Curve,
    PerStage,
    Piece,
    Position,
    Run,
    SettingError,
    Varying,
    at_height,
    check_at_least,
    check_choice,
    check_finite,
    hookimpl,
    value_at,
)


def check_factor(name: str, value: Varying[float]) -> None:
    """Check that a factor is finite and at least 0 wherever it is a number; a curve checks its own.

    Raises:
        SettingError: It is not.
    """
    values = list(value.values()) if isinstance(value, Mapping) else [value]
    for each in values:
        if not isinstance(each, Curve):
            check_at_least(name, each, 0)
            check_finite(name, each)


def is_beside_new(piece: Piece, position: Position) -> bool:
    """Return whether a piece is old, and its network has grown in the current stage."""
    return piece.is_old(position) and not position.stage.keeps(piece.net)


class Everything:
    """Everything learns at the optimizers' rates.

    Args:
        moments: When the optimizers forget what they keep of weights. `keep`: never. `forget_at_stages`: as each stage
            begins. `forget_at_phases`: then, and at the end of each fade (a hard switch has none), as in the released
            code of Karras et al. 2018. `forget_touched`: at these places too, but only of the pieces around the new
            block: the layer to or from the image, the old path, and the block of the stage before (or stem and head).

    Raises:
        ValueError: A value that is not among these.
    """

    def __init__(self, moments: str = "keep") -> None:
        check_choice("moments", moments, MOMENTS)
        self.moments = moments

    def factor(self, piece: Piece, position: Position) -> float:
        """Return 1."""
        return 1.0


class ChosenNetworks(Everything):
    """Some networks learn at speeds of their own.

    Args:
        nets: The networks.
        moments: See `growth.Everything`.

    Raises:
        SettingError: `nets` is no list of networks.
    """

    def __init__(self, nets: Sequence[str], moments: str) -> None:
        super().__init__(moments)
        if isinstance(nets, str) or not nets:
            raise SettingError("nets", f"must be a list of networks, such as ['generator'], not {nets!r}")
        for net in nets:
            check_choice("nets", net, (*NETS, ENCODER))
        self.nets = tuple(nets)

    @hookimpl
    def before_run(self, run: Run) -> None:
        """Check that the run has the networks.

        Raises:
            ConfigError: There is no encoder.
        """
        if ENCODER in self.nets and run.state.encoder is None:
            raise ConfigError(
                f"growth.{type(self).__name__}.nets names the encoder, and there is none: leave it out, or bind "
                "train.encoder_architecture"
            )


class WarmUpNew(ChosenNetworks):
    """Each new block begins slowly, with its layer to or from the image and the old path.

    The factor rises linearly, from one batch's share of `images` at the first step to 1. The pieces of the base stage
    learn at the optimizers' rates from the start.

    Args:
        images: The reals of a stage over which its new pieces warm up, at least 0; may be per stage.
        factor: The factor over these reals, at least 0, in place of the linear one; may be a curve, and per stage.
        nets: The networks that warm up.
        moments: See `growth.Everything`.

    Raises:
        ValueError: A value out of range.
    """

    def __init__(
        self,
        images: PerStage[int] = 10_000,
        factor: Varying[float] | None = None,
        nets: Sequence[str] = NETS,
        moments: str = "keep",
    ) -> None:
        super().__init__(nets, moments)
        check_at_least("images", images, 0)
        if factor is not None:
            check_factor("factor", factor)
        self.images = images
        self.new_factor = factor

    def factor(self, piece: Piece, position: Position) -> float:
        """Return the factor of the warm-up for new pieces, and 1 for old ones and after it."""
        spent = position.images - position.stage_start
        images = at_height(self.images, position.stage.height, "images")
        if piece.net not in self.nets or piece.is_old(position) or position.stage.index == 0 or spent >= images:
            return 1.0
        if self.new_factor is not None:
            return float(value_at(self.new_factor, position, "factor"))
        return min(1.0, (spent + position.stage.batch_size) / images)


class SlowOld(ChosenNetworks):
    """Old blocks learn more slowly than the new one.

    A discriminator that stays as it is in a stage has no new block there, and all of it learns at its rate.

    Args:
        factor: The factor on the learning rate of the pieces that came before the current stage, at least 0; 0 freezes
            them. May be per stage, and a curve.
        nets: The networks whose old pieces are slowed down.
        moments: See `growth.Everything`.

    Raises:
        ValueError: A value out of range.
    """

    def __init__(self, factor: Varying[float] = 0.1, nets: Sequence[str] = NETS, moments: str = "keep") -> None:
        super().__init__(nets, moments)
        check_factor("factor", factor)
        self.old_factor = factor

    def factor(self, piece: Piece, position: Position) -> float:
        """Return the factor of old pieces, and 1 for new ones."""
        if piece.net in self.nets and is_beside_new(piece, position):
            return float(value_at(self.old_factor, position, "factor"))
        return 1.0
