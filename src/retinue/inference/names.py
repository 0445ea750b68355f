"""What engines are called; imports nothing, so that the command line knows, too."""

from typing import Literal

EngineName = Literal["auto", "torch", "onnxruntime", "openvino"]
