"""What several of these functions take."""

from typing import Literal

EngineName = Literal["auto", "torch", "onnxruntime", "openvino"]
PredictEngineName = Literal["auto", "torch", "onnxruntime", "openvino", "ray"]
"""`ray`: several processes or machines, see `retinue.bulk`."""
