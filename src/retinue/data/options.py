"""What can be asked of the data: where it is, how it is split, how training images are varied."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from retinue.options import OnResume, Options
from retinue.sample import LARGEST_SIDE

Fraction = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0)]


class SplitOptions(Options):
    """How images that bring no split of their own are divided."""

    train: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Share of the images to learn from; where only others are said, what they leave."""
    val: Fraction = 0.1
    """Share on which every choice is made."""
    test: Fraction = 0.1
    """Share that is looked at once, at the end."""
    given: Literal["keep", "join", "ignore"] = "keep"
    """What becomes of the splits that the data brings. `keep`: they are taken; `join`: its val is
    learnt from, too, and a share of all that is taken for val (as PASCAL VOC's trainval is used);
    `ignore`: all are drawn anew."""
    seed: int = 0
    """Another seed, another split."""
    file: Annotated[str | None, OnResume.FREE] = None
    """A written-down `splits.csv` (path and split) to repeat instead of drawing; read as any table
    is."""
    folds: Annotated[int, Field(ge=2, le=100)] | Literal["given"] | None = None
    """Cross-validation: train and val together are divided into so many folds, each of which is
    judged by a training on the others; the test split stays out of all of them. `given`: by the
    table's column `fold`."""
    fold: str | None = None
    """One training of these alone, the one that is judged on this fold: a number from 1, or a value
    of the column."""

    @field_validator("fold", mode="before")
    @classmethod
    def _numbered(cls, fold: Any) -> Any:
        return str(fold) if type(fold) is int else fold

    @model_validator(mode="before")
    @classmethod
    def _what_is_left(cls, values: Any) -> Any:
        if not isinstance(values, dict) or "train" in values or not {"val", "test"} & set(values):
            return values
        shares = [values.get(name, cls.model_fields[name].default) for name in ("val", "test")]
        if not all(isinstance(share, int | float) and 0 <= share <= 1 for share in shares):
            return values  # which is refused by what is wrong with it
        left = round(1 - sum(shares), 9)
        return {**values, "train": left} if left > 0 else values

    @model_validator(mode="after")
    def _fold_among_folds(self) -> SplitOptions:
        if self.fold is None:
            return self
        if self.folds is None:
            raise ValueError("fold says which of the folds, and folds says how many there are")
        known = [str(k + 1) for k in range(self.folds)] if isinstance(self.folds, int) else None
        if known is not None and self.fold not in known:
            raise ValueError(f"fold is a number from 1 to {self.folds}, not {self.fold!r}")
        return self

    @model_validator(mode="after")
    def _add_up(self) -> SplitOptions:
        total = self.train + self.val + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train, val and test must add up to 1, not to {total:g}")
        return self


class ColumnOptions(Options):
    """Which columns of a table say what: a name, or in a table without a header a number from 1.
    `auto` knows the usual names and says what it took; null reads none, whatever it is called."""

    path: str = "auto"
    """The image's file."""
    label: str = "auto"
    """The class."""
    split: str | None = "auto"
    """`train`, `val` or `test`, in the words that people use for them."""
    fold: str | None = "auto"
    """The fold of a cross-validation, for `data.split.folds=given`."""
    group: str | None = "auto"
    """Images of one group stay together in one split."""
    stratum: str | None = "auto"
    """Split evenly over these, too."""
    weight: str | None = "auto"
    """How much the image counts in the loss; `auto` takes a column called `sample_weight` only."""

    @model_validator(mode="before")
    @classmethod
    def _numbers(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {k: str(v) if type(v) is int else v for k, v in values.items()}

    @model_validator(mode="after")
    def _apart(self) -> ColumnOptions:
        named = [n for name in type(self).model_fields if (n := getattr(self, name)) != "auto"]
        given = [name for name in named if name is not None]
        if len(set(given)) < len(given):
            raise ValueError("one column is named for two things")
        return self


class FeatureOptions(Options):
    """Which features of a shard's examples say what: names of a TFRecord's features; of a
    WebDataset's, endings (`jpg`, `cls`) or fields of its `json`. `auto` knows the usual names and
    says what it took; null reads none, whatever it is called."""

    image: str = "auto"
    """The encoded image."""
    label: str | None = "auto"
    """The class: a whole number, or its name."""
    text: str | None = "auto"
    """The name of the class that the label numbers."""
    filename: str | None = "auto"
    """What the image is called, which splits are drawn by."""
    first_label: Literal["auto", 0, 1] = "auto"
    """What the first class is numbered. `auto`: 0, or 1 where the file of class names says so: by a
    `label_map.pbtxt`, or since the numbers of the shards fit its lines no other way."""

    @model_validator(mode="after")
    def _something_is_known(self) -> FeatureOptions:
        if self.label is None and self.text is None:
            raise ValueError("neither label nor text is read: nothing would be known of the images")
        return self


class DataOptions(Options):
    """Where the images and their labels are."""

    alone: ClassVar[str | None] = "path"

    path: Annotated[str | None, OnResume.FREE] = None
    """A folder of class folders (or of `train/`, `val/`, `test/`), a table of paths and labels, or
    shards: a file of TFRecord or WebDataset, or a folder of these."""
    format: str = "auto"
    """`auto` recognises it and says what it found; or one that the task reads: `folder`, `table`,
    `tfrecord`, `webdataset`, `elpv`, the data of `pip install elpv-dataset`, or `digits`, those of
    scikit-learn."""
    images: Annotated[str | None, OnResume.FREE] = None
    """The folder that a table's paths start from; by default the table's own folder."""
    pool: Annotated[str | None, OnResume.FREE] = None
    """Images without labels, for stages that label them by what has been learnt so far
    (`data: pseudo_labels`): a folder, everything in it at any depth, or a list, a path a line."""
    columns: ColumnOptions = ColumnOptions()
    """Which columns of a table say what."""
    features: FeatureOptions = FeatureOptions()
    """Which features of shards say what."""
    label_separator: str = "auto"
    """What stands between several labels in one cell of a table: `|`, `;`, `,`, a blank …; empty:
    nothing, each cell is one label. `auto` sees it in the cells, and says what it took."""
    classes: list[str] | None = None
    """The classes to use, in this order; by default all that are found, sorted. In a table with a
    column a class: the columns."""
    also: list[str] | Literal["teacher"] | None = None
    """Classes of which there need be no images, and which the model is to know all the same, such
    as those of the model that it goes on from; `teacher`: those of the recipe's teacher."""
    split: SplitOptions = SplitOptions()
    """How the images are divided, where the data does not say."""
    first_pixel: Literal["auto", 0, 1] = "auto"
    """What boxes in PASCAL VOC's manner call the first pixel of a row or column: 1 in VOC itself,
    where the last pixel is still in the box; with 0, corners are places between pixels. `auto` sees
    it in the boxes at the border; of TFRecords it is 0, and 1 where a script has divided VOC's
    numbers by the sides."""
    unlabelled: Literal["auto", "background", "leave_out"] = "auto"
    """Images that lie among others whose objects are marked, and have no file of marks. `auto`: as
    the format has it, which is background for YOLO's, unless that were half of all, and left out
    for others. It can be chosen for YOLO's and PASCAL VOC's."""
    packed: Literal["off", "auto"] | Annotated[int, Field(ge=16, le=LARGEST_SIDE)] = "off"
    """The shorter side, in pixels, that training images are made small to, once: what came of it is
    kept, so that an epoch decodes no files, at the cost of disk (about 0.5 MB an image at 336) and
    of what crops that are smaller than the input would show. `auto`: 1.5 times the largest input
    that is trained on; `off`: images stay as they are. Validation and test see the files."""
    on_bad_image: Annotated[Literal["stop", "skip"], OnResume.CLOSE] = "stop"
    """`stop` names every image that cannot be read; `skip` puts another in its place, always the
    same one, and lists it."""
    workers: Annotated[Annotated[int, Field(ge=0)] | Literal["auto"], OnResume.FREE] = "auto"
    """Threads that read and warp images; 0 does it between the steps; `auto`: one for each
    processor, and more where they wait for a slow disk or a network, as long as that brings more
    images. The batches are the same for any number."""


class ColourOptions(Options):
    """Changes of colour, drawn anew for each image and epoch."""

    brightness: Fraction = 0.0
    """Amplitude a of the factor on all channels: uniform in 1 − a … 1 + a."""
    brightness_shift: Fraction = 0.0
    """Amplitude of what is added to all channels, as a share of their range: uniform in −a … a,
    after all other changes."""
    contrast: Fraction = 0.0
    """Amplitude of the factor on the distance from the image's mean luma."""
    saturation: Fraction = 0.0
    """Amplitude of the factor on the distance from the pixel's luma."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Amplitude of the rotation in the chroma plane of YIQ, in turns."""
    pca_noise: Amount = 0.0
    """Standard deviation of the noise along the principal colours of ImageNet; AlexNet: 0.1."""
    hsv: Fraction = 0.0
    """Probability of an exact change in HSV by up to `hsv_gains`."""
    hsv_gains: tuple[Fraction, Fraction, Fraction] = (0.015, 0.7, 0.4)
    """Amplitudes of hue, saturation and value: the last two are factors around 1."""
    hsv_hue: Literal["shift", "factor"] = "shift"
    """Whether the hue is shifted by so many turns, or multiplied like the others, counted from red
    (as YOLO is trained: reds stay, blues change most)."""
    solarize: Fraction = 0.0
    """Probability of inverting every value of 128 and above."""
    posterize: Fraction = 0.0
    """Probability of keeping only the 4 highest bits of every value."""
    equalize: Fraction = 0.0
    """Probability of equalising the histogram of each channel."""


class RandAugmentOptions(Options):
    """Several operations of one strength, drawn for each image (Cubuk et al., "RandAugment", 2020).
    `retinue.data.policies` has the operations and what a magnitude means to each."""

    alone: ClassVar[str | None] = "name"

    name: Literal["rand_augment"] = "rand_augment"
    operations: Annotated[int, Field(ge=1, le=14)] = 2
    """How many are drawn, the same one more than once, too."""
    magnitude: Annotated[int, Field(ge=0, le=30)] = 9
    """Of all of them: 30 rotates by 30 degrees and shears by 0.3; 0 leaves geometry, brightness,
    saturation, contrast and sharpness as they are. Autocontrast and equalize have none, and act in
    full."""


class TrivialAugmentOptions(Options):
    """One operation of a strength that is drawn, too, over wide ranges: rotations up to 135
    degrees, shears up to 0.99 (Müller & Hutter, "TrivialAugment", 2021)."""

    alone: ClassVar[str | None] = "name"

    name: Literal["trivial_augment"] = "trivial_augment"


PolicyOptions = Annotated[
    RandAugmentOptions | TrivialAugmentOptions,
    Field(discriminator="name"),
]
"""Operations that are drawn, told apart by `name`."""


class ErasingOptions(Options):
    """Painting over a rectangle of the image (Zhong et al., "Random Erasing", 2017). What is known
    of the image stays; objects that it hides are not to be found."""

    alone: ClassVar[str | None] = "probability"

    probability: Fraction = 0.0
    """Published: 0.5; 0.25 is common."""
    area: tuple[Fraction, Fraction] = (0.02, 0.4)
    """Smallest and largest share of the image's area."""
    ratio: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (0.3, 1 / 0.3)
    """Least and greatest width / height of the rectangle."""
    fill: Literal["random", "mean"] = "random"
    """`random`: each pixel in a colour of its own; `mean`: what becomes 0 by normalisation."""

    @model_validator(mode="after")
    def _ordered(self) -> ErasingOptions:
        for name in ("area", "ratio"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}: the first value must not exceed the second")
        if self.area[0] <= 0:
            raise ValueError("area: the smallest share must be above 0")
        return self


class MixingOptions(Options):
    """Combining the images of a batch, and their labels with them."""

    mixup: Amount = 0.0
    """α of the Beta distribution that the share of each image is drawn from (Zhang et al., 2018);
    0: never."""
    cutmix: Amount = 0.0
    """α of the share of the image that a rectangle of another leaves (Yun et al., 2019); with
    `mixup` as well, each image gets one of the two."""
    quarter_mask: Fraction = 0.0
    """Probability of painting one of the four quarters of the image in the mean colour; not in a
    spliced image, a mosaic or one that another is pasted into."""
    probability: Fraction = 1.0
    """Share of the images that mixup or cutmix is applied to."""


class AugmentOptions(Options):
    """How training images are varied. Everything geometric is one warp."""

    crop_scale: tuple[Fraction, Fraction] | None = None
    """Smallest and largest share of the image's area that a random crop takes; none: the same
    view as in evaluation."""
    crop_ratio: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (3 / 4, 4 / 3)
    """Least and greatest width / height of a random crop, before it is brought to the size."""
    jitter: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Greatest change of the image's width and of its height, either way, before it is fitted into
    the input (YOLOv3; Redmon & Farhadi, 2018: 0.3). With `fit_scale`, in place of a crop."""
    fit_scale: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] | None = None
    """Least and greatest size of the whole image, as a multiple of that at which it just fits into
    the input, uniform; it then lies anywhere on the grey `pad_value`, or, where it is larger than
    the input, any part of it is shown (as YOLO is trained: 0.25 and 2). In place of a crop."""
    horizontal_flip: Fraction = 0.5
    """Probability of mirroring left and right."""
    vertical_flip: Fraction = 0.0
    """Probability of mirroring top and bottom."""
    quarter_turns: bool = False
    """Turn by 0, 90, 180 or 270 degrees, equally likely; with a flip, all eight orientations."""
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Greatest rotation either way, in degrees."""
    shear: Annotated[float, Field(ge=0, lt=90)] = 0.0
    """Greatest horizontal shear either way, in degrees."""
    translate: Fraction = 0.0
    """Greatest shift either way, as a share of the input's width and height."""
    zoom: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] | None = None
    """Least and greatest factor of magnification about the centre, log-uniform."""
    zoom_paste: bool = False
    """Where a zoom below 1 leaves room, show another training image there, instead of the
    border. The labels stay those of the image itself."""
    splice: Fraction = 0.0
    """Probability of joining the image with another of its class: one above or beside the other,
    cut between ¼ and ¾, or along either diagonal, all four equally likely. A spliced image gets
    no other augmentation of its geometry."""
    mosaic: Fraction = 0.0
    """Probability of showing the image and three others in the four quarters around a drawn
    point (YOLOv4; Bochkovskiy et al., 2020)."""
    copy_paste: Fraction = 0.0
    """Probability of pasting a rectangle of another image into it, at the size at which that one
    would be seen itself; classes in proportion to the area, objects where they then lie."""
    blend: Fraction = 0.0
    """Probability of showing another image through it, half and half, with what is known of both:
    mixup for objects with places (Zhang et al., "Bag of freebies for training object detection
    neural networks", 2019). For classes alone, `mixing.mixup` is faster and mixes all shares."""
    border: Literal["reflect", "fill"] = "reflect"
    """What lies beyond the image: its reflection, or the preprocessing's grey `pad_value`. It is
    grey in any case where objects are marked by their place, since nothing marks reflected ones."""
    colour: ColourOptions = ColourOptions()
    """Changes of colour."""
    policy: PolicyOptions | None = None
    """Operations that are drawn for each image, after all other geometry and before `colour`:
    `rand_augment` or `trivial_augment`. Splices and mosaics get only those of colour."""
    erasing: ErasingOptions = ErasingOptions()
    """Painting over a part of the image; `0.25` says `{probability: 0.25}`."""
    mixing: MixingOptions = MixingOptions()
    """Combining images."""

    @model_validator(mode="after")
    def _ordered(self) -> AugmentOptions:
        for name in ("crop_scale", "crop_ratio", "fit_scale", "zoom"):
            pair = getattr(self, name)
            if pair is not None and pair[0] > pair[1]:
                raise ValueError(f"{name}: the first value must not exceed the second")
        if self.crop_scale is not None and self.crop_scale[0] <= 0:
            raise ValueError("crop_scale: the smallest share must be above 0")
        return self

    @model_validator(mode="after")
    def _agree(self) -> AugmentOptions:
        if self.fits and self.crop_scale is not None:
            raise ValueError(
                "crop_scale says which part of the image is shown, and so do jitter and fit_scale: "
                "give the one or the others"
            )
        if self.zoom_paste and (self.zoom is None or self.zoom[0] >= 1):
            raise ValueError("zoom_paste has no effect without a zoom that goes below 1")
        total = self.splice + self.mosaic + self.copy_paste + self.blend
        if total > 1 + 1e-9:
            raise ValueError(
                "splice, mosaic, copy_paste and blend exclude each other: their probabilities must "
                f"not add up to more than 1, but do to {total:g}"
            )
        return self

    @property
    def fits(self) -> bool:
        """Whether the whole image is fitted in, in a drawn size at a drawn place."""
        return self.jitter > 0 or self.fit_scale is not None

    @property
    def mixes_pixels(self) -> bool:
        """Whether finished images of a batch are combined: mixup, cutmix."""
        return self.mixing.mixup > 0 or self.mixing.cutmix > 0

    @property
    def composes_several(self) -> bool:
        """Whether an image may be made of several samples."""
        return self.zoom_paste or self.joins

    @property
    def joins(self) -> bool:
        """Whether an image may be made of several samples that count alike."""
        return max(self.splice, self.mosaic, self.copy_paste, self.blend) > 0

    @property
    def draws(self) -> bool:
        """Whether anything about an image is drawn at random, so that its views differ."""
        still = AugmentOptions(horizontal_flip=0.0, crop_ratio=self.crop_ratio, border=self.border)
        erases, how = self.erasing.probability > 0, ("hsv_gains", "hsv_hue")
        same = self.colour == ColourOptions(**{name: getattr(self.colour, name) for name in how})
        others = {"colour": still.colour, "mixing": still.mixing, "erasing": still.erasing}
        plain = self.model_copy(update=others)
        masks = self.mixing.quarter_mask > 0
        return self.mixes_pixels or masks or erases or not same or plain != still


class ShuffledOptions(Options):
    """Every sample once an epoch, in a new order each time."""

    alone: ClassVar[str | None] = "name"

    name: Literal["shuffled"] = "shuffled"


class WeightedOptions(Options):
    """With replacement, some samples more often than others."""

    alone: ClassVar[str | None] = "name"

    name: Literal["weighted"] = "weighted"
    power: Amount | None = None
    """None: in proportion to the samples' weights, which then do not count in the loss as well.
    Otherwise to their class's frequency to the power of minus this: 0 leaves frequencies as they
    are, 1 makes all classes equal."""


class BalancedOptions(Options):
    """Every class equally often; within each, every sample once before any is seen again."""

    alone: ClassVar[str | None] = "name"

    name: Literal["balanced"] = "balanced"


class ClassPairsOptions(Options):
    """Several images each of a few classes, as losses that compare images need them."""

    alone: ClassVar[str | None] = "name"

    name: Literal["class_pairs"] = "class_pairs"
    images: Annotated[int, Field(gt=0)] = 2
    """Images of each class in a batch."""
    classes: Annotated[int, Field(gt=0)] | None = None
    """Classes in a batch; by default `batch_size` divided by `images`."""


class RepeatFactorOptions(Options):
    """Rare classes more often (Gupta et al., "LVIS", 2019, appendix)."""

    alone: ClassVar[str | None] = "name"

    name: Literal["repeat_factor"] = "repeat_factor"
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.001
    """Classes in a smaller share of the images than this are repeated."""


class ShardsOptions(Options):
    """Shards in a random order, and their examples shuffled within a window."""

    alone: ClassVar[str | None] = "name"

    name: Literal["shards"] = "shards"
    window: Annotated[int, Field(gt=0)] = 10_000
    """Examples that are read ahead and drawn from: the most that memory has to hold."""


SamplerOptions = Annotated[
    ShuffledOptions
    | WeightedOptions
    | BalancedOptions
    | ClassPairsOptions
    | RepeatFactorOptions
    | ShardsOptions,
    Field(discriminator="name"),
]
"""How a stage's batches are drawn, told apart by `name`."""


class SideRange(Options):
    """Sides of a square input: `min`, `min + step`, … up to `max`."""

    min: Annotated[int, Field(gt=0, le=LARGEST_SIDE)]
    """The smallest side, in pixels."""
    max: Annotated[int, Field(gt=0, le=LARGEST_SIDE)]
    """The largest side, in pixels."""
    step: Annotated[int, Field(gt=0, le=LARGEST_SIDE)] = 32
    """How far the sides are apart, in pixels: a multiple of the network's stride."""

    @model_validator(mode="after")
    def _ordered(self) -> SideRange:
        if self.min > self.max:
            raise ValueError("min must not exceed max")
        return self
