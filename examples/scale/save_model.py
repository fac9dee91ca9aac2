"""Save a network that gives probabilities and an embedding, for the other programs of this folder.

    python save_model.py m.lucid

The embedding is what the last layer reads. With a softmax in the model the score is a probability.
The file has code for one level of x86-64, which most processors since 2015 have, so that machines
of different ages give the same bits.
"""

import sys

import lucid
from lucid import nn
from lucid.models import model_info, resnest_digits


class WithEmbedding(nn.Module):
    """A ResNe(S)t that returns probabilities (N, classes) and its embedding (N, size)."""

    def __init__(self, network: nn.Module) -> None:
        self.head, network.fc = network.fc, nn.Identity()
        self.body = network

    def forward(self, x: lucid.Tensor) -> tuple[lucid.Tensor, lucid.Tensor]:
        embedding = self.body(x)
        return self.head(embedding).softmax(1), embedding


def main(path: str) -> None:
    compiled = lucid.compile(
        WithEmbedding(resnest_digits()),
        (16, 32, 32, 1),  # larger batches run in slices of 16
        input="uint8_nhwc",  # decoded images in, a quarter of the bytes of normalised ones
        preprocess=model_info("resnest_digits").preprocess,
        options=lucid.CompileOptions(target="x86-64-v3"),
    )
    compiled.save(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
