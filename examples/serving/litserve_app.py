"""A .lucid file behind LitServe (pip install litserve): images in, classes out.

    python examples/serving/litserve_app.py digits.lucid
    curl -F content=@examples/digits/7_0.png localhost:8000/predict

LitServe makes the batches, so the model is called with whole ones, on all its threads.
"""

import sys

import litserve
import numpy as np
from fastapi import Request

import lucid


class LucidAPI(litserve.LitAPI):
    def __init__(self, path: str, **options) -> None:
        super().__init__(**options)
        self._path = path

    def setup(self, device: str) -> None:
        """Once in each worker, which share the pages of the file."""
        self._model = lucid.load(self._path)

    def decode_request(self, request: Request) -> np.ndarray:
        return lucid.vision.preprocess(request["content"].file.read(), self._model)

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        return np.concatenate(inputs)

    def predict(self, batch: np.ndarray) -> np.ndarray:
        return self._model(batch)

    def unbatch(self, logits: np.ndarray) -> list[np.ndarray]:
        return list(logits)

    def encode_response(self, logits: np.ndarray) -> dict:
        return {"class": int(logits.argmax()), "logits": logits.tolist()}


if __name__ == "__main__":
    api = LucidAPI(sys.argv[1], max_batch_size=8, batch_timeout=0.002)
    litserve.LitServer(api, accelerator="cpu").run(port=8000, generate_client_file=False)
