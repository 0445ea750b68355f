"""What several of these functions take."""

from typing import Literal

EngineName = Literal["auto", "torch", "onnxruntime", "openvino"]
