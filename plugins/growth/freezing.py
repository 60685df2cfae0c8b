"""Growth policies that freeze pieces."""

from __future__ import annotations

from collections.abc import Sequence

from pggan_kit import PerStage, Piece, Position, at_height, check_at_least
from pggan_plugins.growth.speeds import ChosenNetworks, Everything, is_beside_new


class FreezeOld(ChosenNetworks):
    """Old blocks are frozen, and the new one learns on top of them.

    By default those of the generator alone, for good, as StyleGAN-XL does with its stem (Sauer et al. 2022, section 3):
    there each stage trains the layers that it adds, and a whole discriminator. (There, too, the stem that the next
    stage trains on is the average of the stage before; here the generator goes on from its own weights.)

    A discriminator that stays as it is in a stage has no new block there, and all of it learns.

    Args:
        images: The reals of a stage for which the pieces of earlier stages are frozen, at least 0; may be per stage.
            None for the whole stage.
        nets: The networks whose old pieces are frozen.
        moments: See `growth.Everything`. Frozen pieces have none, and begin without any as they learn again.

    Raises:
        ValueError: A value out of range.
    """

    def __init__(
        self, images: PerStage[int] | None = None, nets: Sequence[str] = ("generator",), moments: str = "keep"
    ) -> None:
        super().__init__(nets, moments)
        check_at_least("images", images, 0, instead="None")
        self.images = images

    def factor(self, piece: Piece, position: Position) -> float:
        """Return 0 for old pieces while they are frozen, and 1 for all others."""
        if piece.net not in self.nets or not is_beside_new(piece, position):
            return 1.0
        if self.images is None:
            return 0.0
        spent = position.images - position.stage_start
        return 0.0 if spent < at_height(self.images, position.stage.height, "images") else 1.0


class FreezeD(Everything):
    """The discriminator's layers near the image are frozen (Mo et al. 2020, "Freeze the Discriminator").

    That is for a run that begins with trained weights, such as a branch (`--from`) on other images. In a run from
    scratch a new block has learned nothing when its stage begins: give it some `images`.

    Args:
        learning: The pieces of D nearest the score that learn, the head first and then the blocks, at least 1; may be
            per stage. The released code has 3: the head at 4x4 and the blocks from 8x8 and 16x16. Blocks nearer the
            image, the layer from the image and the old path are frozen.
        images: The reals of a stage in which everything learns first, at least 0; may be per stage.
        moments: See `growth.Everything`.

    Raises:
        ValueError: A value out of range.
    """

    def __init__(self, learning: PerStage[int] = 3, images: PerStage[int] = 0, moments: str = "keep") -> None:
        super().__init__(moments)
        check_at_least("learning", learning, 1)
        check_at_least("images", images, 0)
        self.learning = learning
        self.images = images

    def factor(self, piece: Piece, position: Position) -> float:
        """Return 0 for the frozen pieces of D, and 1 for all others."""
        height = position.stage.height
        spent = position.images - position.stage_start
        if piece.net != "discriminator" or spent < at_height(self.images, height, "images"):
            return 1.0
        # The head is of stage 0, and each block of the stage that it came with.
        near_score = piece.name in ("head", "block") and piece.birth.index < at_height(
            self.learning, height, "learning"
        )
        return 1.0 if near_score else 0.0
