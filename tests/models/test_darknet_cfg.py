"""Descriptions by Darknet's `.cfg`, as people write them, and what is wrong with them."""

from __future__ import annotations

import re

import pytest
import torch
from darknet_texts import CONV, LAST, NET, YOLO, build
from hypothesis import given, settings
from hypothesis import strategies as st

from retinue.errors import RetinueError, UsageError
from retinue.models.darknet import EXAMPLE
from retinue.models.darknet_cfg import MOST_SECTIONS, parse
from retinue.models.registry import create_model


def test_as_people_write_them():
    text = "\ufeff" + (NET + "[conv]\nfilters = 18 # all\n\n; old\nactivation=linear\n" + YOLO)
    text = text.replace("\n", "\r\n").replace("1,2,3", "1, 2,  3")
    network = create_model("darknet", cfg=text)
    assert network.anchors == (((1, 2), (3, 4), (5, 6)),)
    assert network.strides == (1,)


WRONG = {
    "no layers": ((), "there are no layers"),
    "no yolo": ((CONV,), "no \\[yolo\\] layer"),
    "a layer that nobody knows": (("[convolution]\n",), "line 4, .convolution., did you mean"),
    "a key that nobody knows": ((CONV + "stirde=2\n",), "no key 'stirde'.*line 11.*did you mean"),
    "net twice": ((NET,), "stands first.*line 4"),
    "no number": ((CONV + "groups=two\n",), "groups is a whole number from 1 to 65536, not 'two'"),
    "a number out of bounds": (
        (CONV.replace("=4", "=999999999"),),
        "filters is a whole number from 1 to 65536, not '999999999'.* line 6",
    ),
    "said twice": ((CONV + "size=5\n",), "size is 3 in line 7, and 5 here.*line 11"),
    "no key=value": ((CONV + "what is this\n",), "neither a section nor key=value: 'what is this'"),
    "another activation": ((CONV.replace("leaky", "leeky"),), "'leeky'.*line 10.*mean 'leaky'"),
    "groups that do not divide": ((CONV + "groups=3\n",), "3 groups of 3 channels to 4 filters"),
    "a route to nowhere": ((CONV, "[route]\nlayers=-2\n"), "no layer -1 before layer 1"),
    "a route ahead": ((CONV, "[route]\nlayers=5\n"), "no layer 5 before layer 1"),
    "a route without layers": ((CONV, "[route]\n"), "there is no layers"),
    "maps of two sizes": ((CONV, CONV, "[route]\nlayers=0,1\n"), "32 × 32 and layer 1 16 × 16"),
    "a group too many": ((CONV, "[route]\nlayers=0\ngroups=2\ngroup_id=2\n"), "of 2 groups"),
    "groups of a route": ((CONV, "[route]\nlayers=0\ngroups=3\n"), "4 channels are not 3 equal"),
    "a sum of two widths": (
        (CONV, CONV.replace("=4", "=8").replace("stride=2", "stride=1"), "[shortcut]\nfrom=-2\n"),
        "maps of 8 and 4 channels",
    ),
    "weighted sums": ((CONV, "[shortcut]\nfrom=-1\nweights_type=per_feature\n"), "not supported"),
    "upsampled beyond the image": ((CONV, "[upsample]\nstride=4\n"), "stride 2 is not upsampled"),
    "filters of a yolo": ((LAST.replace("18", "20"), YOLO), "it is 3 · \\(1 \\+ 5\\) = 18"),
    "a normalised answer": (("[conv]\nfilters=18\nbatch_normalize=1\nactivation=linear\n", YOLO),
                            "a linear layer with a bias"),
    "a bent answer": (("[conv]\nfilters=18\n", YOLO), "a linear layer with a bias"),
    "a yolo after a pool": ((LAST, "[maxpool]\n", YOLO), "in front of .yolo. stands"),
    "anchors in halves": ((LAST, YOLO.replace(",5,6", ",5")), "5 numbers are not the anchors"),
    "an anchor of no width": (
        (LAST, YOLO.replace("=1,2,3,4", "=0,2,3,4")),
        "anchors is a number from 0.001 to 65536, not '0'",
    ),
    "more anchors than there are": ((LAST, YOLO.replace("num=3", "num=9")), "not the anchors"),
    "an anchor that is none": ((LAST, YOLO.replace("0,1,2", "0,1,3")), "no anchor 3"),
    "two kinds of classes": (
        (LAST, YOLO, LAST.replace("18", "21"), YOLO.replace("classes=1", "classes=2")),
        "other classes",
    ),
    "another decoding": ((LAST, YOLO + "new_coords=1\n"), "new_coords=1 is not supported"),
    "a window too large": ((CONV.replace("size=3", "size=99").replace("pad=1", "pad=0"),), "of 99"),
    "dropout of everything": (("[dropout]\nprobability=1\n",), "probability is a number from 0 to"),
    "more than memory": (
        (CONV.replace("=4", "=9999"), CONV.replace("=4", "=9999").replace("size=3", "size=5")),
        "line 11, .convolutional.|more than 1,000,000,000 parameters",
    ),
    "NaN": ((LAST, YOLO + "scale_x_y=nan\n"), "scale_x_y is a number"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_told_with_its_line(case):
    sections, said = WRONG[case]
    with pytest.raises(RetinueError, match=said) as caught:
        build(*sections)
    assert re.search(r"cfg line \d+", str(caught.value))


def test_what_is_no_description(tmp_path):
    for text, said in (
        ("\n", "no sections"),
        ("hello\nworld\n", "line 1"),
        ("x\n" * 10**6, "long"),
    ):
        with pytest.raises(RetinueError, match=said):
            create_model("darknet", cfg=text)
    with pytest.raises(RetinueError, match=r"65536 × 64 pixels are larger.*line 2, \[net\]"):
        create_model("darknet", cfg=NET.replace("width=64", "width=65536") + CONV)
    with pytest.raises(RetinueError, match="more than 2,000 layers"):
        parse(NET + "[dropout]\n" * (MOST_SECTIONS + 1))
    with pytest.raises(UsageError, match=r"no such file, .*nothing\.cfg"):
        create_model("darknet", cfg=str(tmp_path / "nothing.cfg"))
    with pytest.raises(UsageError, match="no such file"):
        create_model("darknet", cfg="")
    with pytest.raises(UsageError, match="no such file"):
        create_model("darknet", cfg=str(tmp_path))
    (tmp_path / "w.cfg").write_bytes(bytes(range(256)))
    with pytest.raises(RetinueError, match=r"w\.cfg"):
        create_model("darknet", cfg=str(tmp_path / "w.cfg"))
    (tmp_path / "bad.cfg").write_text(NET + "[what]\n")
    with pytest.raises(RetinueError, match=r"bad\.cfg line 4, \[what\]"):
        create_model("darknet", cfg=str(tmp_path / "bad.cfg"))


LINES = st.sampled_from([*EXAMPLE.splitlines(), "[", "=", "[net]", "stride=0", "mask=",
                         "layers=,", "anchors=,,", "size=-1", "from=0,0", "filters=70000",
                         "groups=0"])  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_nothing_but_our_errors(data):
    """Whatever lines are changed, left out or put in: it is built, or refused in words."""
    lines = EXAMPLE.splitlines()
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(lines) - 1))
        change = data.draw(st.lists(LINES, max_size=2))
        lines[at : at + data.draw(st.integers(0, 2))] = change
    said = ""
    try:
        with torch.device("meta"):
            network = create_model("darknet", cfg="\n".join(lines) + "\n").eval()
    except RetinueError as error:
        said = str(error)
    assert "Error" not in said  # of Python's, in other words
    if not said:
        levels = network(torch.empty(1, 3, *network.native_size, device="meta"))["levels"]
        assert len(levels) == len(network.strides)
