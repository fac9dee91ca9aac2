"""A runtime for MLServer (pip install mlserver): a .lucid file behind its REST, gRPC and Kafka.

model-settings.json:

    {"name": "digits", "implementation": "mlserver_runtime.LucidRuntime",
     "parameters": {"uri": "./digits.lucid"}}

and then `mlserver start .`, with this file in the folder or on the path. Requests are put into
batches by `lucid.Batcher`; leave MLServer's own adaptive batching off.
"""

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.errors import InferenceError
from mlserver.types import InferenceRequest, InferenceResponse
from mlserver.utils import get_model_uri

import lucid


class LucidRuntime(MLModel):
    async def load(self) -> bool:
        compiled = lucid.load(await get_model_uri(self._settings))
        self._outputs = [spec.name for spec in compiled.outputs]
        self._batcher = lucid.Batcher(compiled)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        inputs = {i.name: self.decode(i, default_codec=NumpyCodec) for i in payload.inputs}
        try:
            answer = await self._batcher.asubmit(inputs)
        except lucid.LucidError as error:  # a shape or a dtype that does not fit
            raise InferenceError(str(error)) from error
        arrays = answer if isinstance(answer, tuple) else (answer,)
        return InferenceResponse(
            model_name=self.name,
            id=payload.id,
            outputs=[
                NumpyCodec.encode_output(name, array)
                for name, array in zip(self._outputs, arrays, strict=True)
            ],
        )

    async def unload(self) -> bool:
        self._batcher.close()
        return True
