"""Keras Applications' weights, as the source of `keras.applications` states addresses and hashes.

Its hashes are MD5: they find damage, not malice. Of MobileNet and MobileNetV2 there are none, but
the sizes of two, as Keras prints them when it fetches them. The accuracy is that of its
documentation; of the narrow MobileNets, which were converted from Google's, of their paper (table
6).
"""

from __future__ import annotations

from retinue.weights.catalogue.entry import APACHE, Url, WeightsEntry

_TENSORFLOW = "https://storage.googleapis.com/tensorflow/keras-applications/"
_KERAS = "https://storage.googleapis.com/keras-applications/"
_KERNELS = "_weights_tf_dim_ordering_tf_kernels.h5"

# network, tag, address, MD5, top-1, top-5; `imagenet` where there is no better known set
# fmt: off
_FILES: tuple[tuple[str, str, str, str, float | None, float | None], ...] = (
    ("vgg16", "keras", f"{_TENSORFLOW}vgg16/vgg16{_KERNELS}",
     "64373286793e3c8b2b4e3219cbf3544b", 0.713, 0.901),
    ("vgg19", "keras", f"{_TENSORFLOW}vgg19/vgg19{_KERNELS}",
     "cbe5617147190e668d6c5d5026f83318", 0.713, 0.900),
    ("resnet50_v1", "imagenet", f"{_TENSORFLOW}resnet/resnet50{_KERNELS}",
     "2cb95161c43110f7111970584f804107", 0.749, 0.921),
    ("resnet101_v1", "imagenet", f"{_TENSORFLOW}resnet/resnet101{_KERNELS}",
     "f1aeb4b969a6efcfb50fad2f0c20cfc5", 0.764, 0.928),
    ("resnet152_v1", "imagenet", f"{_TENSORFLOW}resnet/resnet152{_KERNELS}",
     "100835be76be38e30d865e96f2aaae62", 0.766, 0.931),
    ("xception", "keras", f"{_TENSORFLOW}xception/xception{_KERNELS}",
     "0a58e3b7378bc2990ea3b43d5981f1f6", 0.790, 0.945),
    ("mobilenet_v1", "imagenet", f"{_TENSORFLOW}mobilenet/mobilenet_1_0_224_tf.h5",
     "", 0.704, 0.895),
    ("mobilenet_v1_075", "imagenet", f"{_TENSORFLOW}mobilenet/mobilenet_7_5_224_tf.h5",
     "", 0.684, None),
    ("mobilenet_v1_050", "imagenet", f"{_TENSORFLOW}mobilenet/mobilenet_5_0_224_tf.h5",
     "", 0.637, None),
    ("mobilenet_v1_025", "imagenet", f"{_TENSORFLOW}mobilenet/mobilenet_2_5_224_tf.h5",
     "", 0.506, None),
    ("mobilenet_v2", "keras", f"{_TENSORFLOW}mobilenet_v2/mobilenet_v2{_KERNELS[:-3]}_1.0_224.h5",
     "", 0.713, 0.901),
    ("mobilenet_v2_035", "imagenet",
     f"{_TENSORFLOW}mobilenet_v2/mobilenet_v2{_KERNELS[:-3]}_0.35_224.h5", "", None, None),
    ("mobilenet_v2_050", "keras",
     f"{_TENSORFLOW}mobilenet_v2/mobilenet_v2{_KERNELS[:-3]}_0.5_224.h5", "", None, None),
    ("mobilenet_v2_075", "imagenet",
     f"{_TENSORFLOW}mobilenet_v2/mobilenet_v2{_KERNELS[:-3]}_0.75_224.h5", "", None, None),
    ("mobilenet_v2_140", "keras",
     f"{_TENSORFLOW}mobilenet_v2/mobilenet_v2{_KERNELS[:-3]}_1.4_224.h5", "", None, None),
    ("mobilenet_v3_large", "keras",
     f"{_TENSORFLOW}mobilenet_v3/weights_mobilenet_v3_large_224_1.0_float.h5",
     "59e551e166be033d707958cf9e29a6a7", 0.756, None),
    ("mobilenet_v3_large_075", "imagenet",
     f"{_TENSORFLOW}mobilenet_v3/weights_mobilenet_v3_large_224_0.75_float.h5",
     "765b44a33ad4005b3ac83185abf1d0eb", 0.733, None),
    ("mobilenet_v3_small", "keras",
     f"{_TENSORFLOW}mobilenet_v3/weights_mobilenet_v3_small_224_1.0_float.h5",
     "8768d4c2e7dee89b9d02b2d03d65d862", 0.681, None),
    ("mobilenet_v3_small_075", "keras",
     f"{_TENSORFLOW}mobilenet_v3/weights_mobilenet_v3_small_224_0.75_float.h5",
     "cb65d4e5be93758266aa0a7f2c6708b7", 0.654, None),
    ("tf_efficientnet_b0", "keras", f"{_KERAS}efficientnetb0.h5",
     "902e53a9f72be733fc0bcb005b3ebbac", 0.771, 0.933),
    ("tf_efficientnet_b1", "keras", f"{_KERAS}efficientnetb1.h5",
     "1d254153d4ab51201f1646940f018540", 0.791, 0.944),
    ("tf_efficientnet_b2", "keras", f"{_KERAS}efficientnetb2.h5",
     "b15cce36ff4dcbd00b6dd88e7857a6ad", 0.801, 0.949),
    ("tf_efficientnet_b3", "keras", f"{_KERAS}efficientnetb3.h5",
     "ffd1fdc53d0ce67064dc6a9c7960ede0", 0.816, 0.957),
    ("tf_efficientnet_b4", "keras", f"{_KERAS}efficientnetb4.h5",
     "18c95ad55216b8f92d7e70b3a046e2fc", 0.829, 0.964),
    ("tf_efficientnet_b5", "keras", f"{_KERAS}efficientnetb5.h5",
     "ace28f2a6363774853a83a0b21b9421a", 0.836, 0.967),
    ("tf_efficientnet_b6", "keras", f"{_KERAS}efficientnetb6.h5",
     "165f6e37dce68623721b423839de8be5", 0.840, 0.968),
    ("tf_efficientnet_b7", "keras", f"{_KERAS}efficientnetb7.h5",
     "8c03f828fec3ef71311cd463b6759d99", 0.843, 0.970),
)
# fmt: on
_SIZES = {"mobilenet_v1": 17_225_924, "mobilenet_v2": 14_536_120}

ENTRIES = [
    WeightsEntry(
        network=network,
        tag=tag,
        layout="tf-keras" if network.startswith(("mobilenet_v2", "mobilenet_v3")) else "keras",
        places=(Url(address),),
        licence=APACHE,
        md5=md5,
        size=None if md5 else _SIZES.get(network),
        top1=top1,
        top5=top5,
    )
    for network, tag, address, md5, top1, top5 in _FILES
]
