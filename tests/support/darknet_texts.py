"""Darknet's descriptions of small networks, in pieces."""

from __future__ import annotations

from retinue.models.registry import create_model

NET = "[net]\nwidth=64\nheight=64\n"

CONV = "[convolutional]\nbatch_normalize=1\nfilters=4\nsize=3\nstride=2\npad=1\nactivation=leaky\n"

LAST = "[convolutional]\nfilters=18\nsize=1\nactivation=linear\n"

YOLO = "[yolo]\nmask=0,1,2\nanchors=1,2,3,4,5,6\nclasses=1\nnum=3\n"


def build(*sections, **arguments):
    return create_model("darknet", cfg=NET + "".join(sections), **arguments)
