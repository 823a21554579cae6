"""Images of users: folders, arrays, data sets and data modules give the same pixels, or an error that helps."""

import collections
import os
import pickle
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from lightning_camrobust.errors import ArgumentError, UnknownNameError
from lightning_camrobust.study.source import ImageSource, StudyImage, check_readable, collate, open_images

SHARED = Path(__file__).parents[3] / "shared" / "data"


def picture(height=12, width=10, seed=0):
    """Smooth enough for JPEG, different in every corner."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [np.sin(rows * a / 3 + columns * b / 4 + c) for a, b, c in generator.uniform(0.3, 2, (3, 3))]
    return np.stack([127.5 + 127 * wave for wave in waves], axis=2).astype(np.uint8)


def write(file, array=None, **settings):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture() if array is None else array).save(file, **settings)


def as_pixels(array):
    return torch.from_numpy(array).permute(2, 0, 1).float() / 255


def test_a_folder_gives_exact_pixels_in_sorted_order(tmp_path):
    for number, name in enumerate(("b.png", "a.bmp", "sub/c.PNG", "d.tif", "e.webp", ".hidden.png", "notes.txt")):
        if name.endswith(".txt"):
            (tmp_path / name).write_text("x")
        else:
            write(tmp_path / name, picture(seed=number), **({"lossless": True} if name == "e.webp" else {}))
    source = open_images(tmp_path, labels="none")
    assert isinstance(source, ImageSource)
    assert source.name == tmp_path.name
    assert [each.name for each in source] == ["a.bmp", "b.png", "d.tif", "e.webp", "sub/c.PNG"]
    assert [each.index for each in source] == [0, 1, 2, 3, 4]
    for each, seed in zip(source, (1, 0, 3, 4, 2), strict=True):
        assert each.label == -1
        torch.testing.assert_close(each.pixels, as_pixels(picture(seed=seed)), rtol=0, atol=0)
        assert each.pixels.is_contiguous()
        assert each.pixels.dtype == torch.float32


def test_folders_are_classes_as_in_torchvision(tmp_path):
    for name in ("dog/1.png", "cat/2.png", "cat/deep/1.png", "Zebra/1.png", ".git/1.png"):
        write(tmp_path / name)
    from torchvision.datasets import ImageFolder

    (tmp_path / ".git" / "1.png").unlink()
    (tmp_path / ".git").rmdir()
    theirs = {Path(file).relative_to(tmp_path).as_posix(): label for file, label in ImageFolder(tmp_path).samples}
    assert {each.name: each.label for each in open_images(tmp_path)} == theirs
    assert {each.name: each.label for each in open_images(tmp_path, num_images=2)}.items() <= theirs.items()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArgumentError, match=r"folder 'empty' in .* holds no images.*move it away"):
        open_images(tmp_path)
    write(tmp_path / "loose.png")
    with pytest.raises(ArgumentError, match=r"1 images lie right in .*'loose.png'.*labels='none'"):
        open_images(tmp_path)


def test_folders_whose_names_are_other_numbers_are_not_guessed(tmp_path):
    for name in range(11):
        write(tmp_path / str(name) / "1.png")
    with pytest.raises(
        ArgumentError, match=r"folder '10' would be class 2, .*labels=r'\^\(\\d\+\)/'.*labels='folders'"
    ):
        open_images(tmp_path)
    assert {each.name: each.label for each in open_images(tmp_path, labels=r"^(\d+)/")}["10/1.png"] == 10
    assert {each.name: each.label for each in open_images(tmp_path, labels="folders")}["10/1.png"] == 2


def test_a_single_folder_is_not_taken_for_a_class(tmp_path):
    write(tmp_path / "photos" / "1.png")
    with pytest.raises(ArgumentError, match=r"all images of .* lie in one folder, 'photos'.*labels='none'"):
        open_images(tmp_path)
    assert open_images(tmp_path, labels="folders")[0].label == 0
    assert open_images(tmp_path, labels="none")[0].label == -1
    assert open_images(tmp_path / "photos")[0].label == -1


def test_labels_from_file_names(tmp_path):
    write(tmp_path / "0042_n01440764.png")
    write(tmp_path / "0007_n01440765.png")
    assert [each.label for each in open_images(tmp_path, labels=r"^(\d+)_")] == [7, 42]
    write(tmp_path / "0003_x.png")
    chosen = open_images(tmp_path, labels=r"^(\d+)_", num_images=2)
    assert [(each.name, each.label, each.index) for each in chosen] == [
        ("0003_x.png", 3, 0),
        ("0007_n01440765.png", 7, 1),
    ]
    write(tmp_path / "0001_y.png")
    assert [each.label for each in open_images(tmp_path, labels=r"^(\d+)_", num_images=2)] == [1, 7]
    (tmp_path / "0001_y.png").unlink()
    (tmp_path / "0003_x.png").unlink()
    for expression, message in {
        r"^(n\d+)_": r"does not match the file '0007_n01440765.png'",
        r"_(n\d+)": r"in the file '0007_n01440765.png' gives the label 'n01440765', which is no whole number",
        r"^\d+": r"has 0 groups, and must have one.*such as r'\^\(\\d\+\)_'",
        r"(": r"is no regular expression",
        "labels.csv": r"labels.csv' does not exist. Check the path of the CSV file",
    }.items():
        with pytest.raises(ArgumentError, match=message):
            open_images(tmp_path, labels=expression)


@pytest.mark.parametrize(
    "text", ["file,label\nb.png,3\na.png,1\n", "a.png,1\r\n\r\nb.png,3", "label,x,path\n1,,./a.png\n3,,b.png"]
)
def test_labels_from_a_table(tmp_path, text):
    write(tmp_path / "a.png")
    write(tmp_path / "b.png")
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8-sig")
    for given in (tmp_path / "labels.csv", "labels.csv"):
        assert [each.label for each in open_images(tmp_path, labels=given)] == [1, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na.png,1\n", r"1 of 2 images have no row in 'labels.csv', which has 1 \('b.png'.*write -1"),
        ("a.png,1\nb.png,2\nc.png,3\n", r"'labels.csv' has 3 rows for 2 images: 1 rows name no image \('c.png'"),
        ("a.png,1\nb.png,2\na.png,1\n", r"row 3 of 'labels.csv' names 'a.png' a second time"),
        ("a.png,1\nb.png,cat\n", r"row 2 of 'labels.csv' gives the label 'cat', which is no whole number"),
        ("a.png,1\nb.png,1.0\n", r"row 2 of 'labels.csv' gives the label '1.0'"),
        ("a.png,1\nb.png,-2\n", r"row 2 .* gives the label '-2'"),
        ("a.png,1\nb.png\n", r"row 2 of 'labels.csv' has 1 columns.*Write file,label"),
        ("name,kind\na.png,1\n", r"labels.csv' must have the columns file,label; its first row is \['name', 'kind'\]"),
        ("", r"must have the columns file,label"),
    ],
)
def test_tables_that_do_not_fit_are_refused(tmp_path, text, message):
    write(tmp_path / "a.png")
    write(tmp_path / "b.png")
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(ArgumentError, match=message):
        open_images(tmp_path, labels="labels.csv")


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("size", "resize", "crop"), [(32, 32, 32), (96, 96, 96), ((40, 33), 40, 33)])
@pytest.mark.parametrize("shape", [(48, 70), (71, 48), (64, 64)])
def test_resizing_and_cutting_are_those_of_torchvision(tmp_path, shape, size, resize, crop, interpolation):
    from torchvision.transforms import v2

    array = picture(*shape)
    write(tmp_path / "a.png", array)
    mode = v2.InterpolationMode(interpolation)
    theirs = v2.Compose([v2.Resize(resize, mode, antialias=True), v2.CenterCrop(crop), v2.PILToTensor()])
    expected = theirs(Image.fromarray(array)).float() / 255
    found = open_images(tmp_path, size=size, interpolation=interpolation)[0].pixels
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)
    tensor = open_images([(as_pixels(array), 0)], size=size, interpolation=interpolation)[0].pixels
    # PIL rounds to whole numbers after each of its two passes.
    torch.testing.assert_close(tensor, expected, rtol=0, atol=1.5 / 255)
    floats = v2.Compose(theirs.transforms[:2])(as_pixels(array)).clamp(0, 1)
    torch.testing.assert_close(tensor, floats, rtol=0, atol=1e-6)


def test_more_than_eight_bits_are_scaled_by_what_they_can_hold(tmp_path):
    ramp = np.linspace(0, 65535, 12 * 10).astype(np.uint16).reshape(12, 10)
    for name in ("a.png", "b.tif"):
        write(tmp_path / name, ramp)
    Image.fromarray((ramp / 65535).astype(np.float32)).save(tmp_path / "c.tif")
    source = open_images(tmp_path)
    expected = torch.from_numpy(ramp / 65535).float().expand(3, -1, -1)
    for number in range(3):
        torch.testing.assert_close(source[number].pixels, expected, rtol=0, atol=1e-6)
    grey = open_images(tmp_path, channels=1, size=6)[0].pixels
    averaged = torch.nn.functional.interpolate(expected[None, :1], (7, 6), mode="bilinear", antialias=True)[0, :, :6]
    torch.testing.assert_close(grey, averaged, rtol=0, atol=1e-6)


def test_twelve_bits_in_a_tiff_are_scaled_by_twelve(tmp_path):
    write(tmp_path / "a.tif", np.full((4, 4), 4095 // 5, dtype=np.uint16))
    scan = Image.open(tmp_path / "a.tif")
    scan.load()
    scan.tag_v2[258] = (12,)
    assert open_images([(scan, 0)])[0].pixels.unique().tolist() == pytest.approx([0.2])


def test_sixteen_bits_a_colour_keep_their_brightness(tmp_path):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    values = np.random.default_rng(0).integers(0, 65536, (6, 5, 3)).astype(">u2")
    lines = b"".join(b"\0" + line.tobytes() for line in values)
    head = struct.pack(">IIBBBBB", 5, 6, 16, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    expected = torch.from_numpy(values.astype(np.float32) / 65535).permute(2, 0, 1)
    torch.testing.assert_close(open_images(tmp_path)[0].pixels, expected, rtol=0, atol=1 / 255)


def test_linked_folders_are_followed_but_not_in_circles(tmp_path):
    write(tmp_path / "elsewhere" / "1.png")
    for name in ("cat", "dog"):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / name).symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert [(each.name, each.label) for each in open_images(tmp_path / "data")] == [("cat/1.png", 0), ("dog/1.png", 1)]
    (tmp_path / "data" / "cow.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(ArgumentError, match=r"'cow.png' cannot be read as an image \(FileNotFoundError"):
        open_images(tmp_path / "data", labels="none")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(ArgumentError, match=r"the link .*back' leads back to a folder that it lies in. Remove it"):
        open_images(tmp_path)


def test_values_without_a_known_white_are_refused(tmp_path):
    Image.fromarray(np.full((4, 4), 70000, dtype=np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(ArgumentError, match=r"'a.tif' holds whole numbers of 32 bits, and nothing says which one is"):
        open_images(tmp_path)[0]
    Image.fromarray(np.full((4, 4), 1.5, dtype=np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ArgumentError, match=r"'a.tif' must lie in \[0, 1\], but its values go from 1.5 to 1.5"):
        open_images(tmp_path)[0]
    Image.fromarray(np.full((4, 4), 9, dtype=np.uint16)).save(tmp_path / "a.tif", tiffinfo={262: 0})
    with pytest.raises(ArgumentError, match=r"'a.tif' is a TIFF of more than 8 bits in which 0 means white"):
        open_images(tmp_path)[0]


def test_other_modes_become_colour_sensibly(tmp_path):
    array = picture()
    colour = Image.fromarray(array)
    half = np.concatenate([array, np.zeros_like(array[..., :1])], axis=2)
    half[:, 5:, 3] = 255
    Image.fromarray(half).save(tmp_path / "alpha.png")
    colour.convert("L").save(tmp_path / "grey.png")
    colour.convert("1").save(tmp_path / "one.png")
    colour.quantize(16).save(tmp_path / "palette.png")
    colour.convert("CMYK").save(tmp_path / "print.tif")
    seen = colour.quantize(4)
    seen.save(tmp_path / "see_through.png", transparency=0)
    found = {each.name: each.pixels for each in open_images(tmp_path)}
    white = as_pixels(array).clone()
    white[:, :, :5] = 1
    torch.testing.assert_close(found["alpha.png"], white, rtol=0, atol=0)
    grey = (as_pixels(array) * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(0).expand(3, -1, -1)
    torch.testing.assert_close(found["grey.png"], grey, rtol=0, atol=1.01 / 255)
    assert set(found["one.png"].unique().tolist()) == {0.0, 1.0}
    palette = as_pixels(np.array(colour.quantize(16).convert("RGB")))
    torch.testing.assert_close(found["palette.png"], palette, rtol=0, atol=0)
    torch.testing.assert_close(found["print.tif"], as_pixels(array), rtol=0, atol=2 / 255)
    clear = torch.from_numpy(np.array(seen) == 0)
    assert clear.any()
    assert (found["see_through.png"][:, clear] == 1).all()
    assert {each.pixels.shape[0] for each in open_images(tmp_path, channels=1)} == {1}


@pytest.mark.parametrize("kind", ["jpg", "png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_turn_that_exif_asks_for_is_made(tmp_path, orientation, kind):
    upright = np.kron(picture(4, 6), np.ones((8, 8, 1), dtype=np.uint8))
    # What a camera held that way stores: the inverse of the turn it asks for.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    settings = {"quality": 100, "subsampling": 0} if kind == "jpg" else {}
    write(tmp_path / f"a.{kind}", np.ascontiguousarray(stored), exif=exif, **settings)
    write(tmp_path / "b.png", upright)
    source = open_images(tmp_path)
    torch.testing.assert_close(source[0].pixels, source[1].pixels, rtol=0, atol=8 / 255 if kind == "jpg" else 0)


@pytest.mark.parametrize("content", ["empty", "text", "cut"])
@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "webp", "bmp"])
def test_a_damaged_image_is_named(tmp_path, content, kind):
    write(tmp_path / f"a.{kind}", picture(64, 64))
    write(tmp_path / "fine.png", picture(64, 64))
    whole = (tmp_path / f"a.{kind}").read_bytes()
    damaged = {"empty": b"", "text": b"not an image", "cut": whole[: len(whole) * 2 // 3]}[content]
    (tmp_path / f"a.{kind}").write_bytes(damaged)
    with pytest.raises(ArgumentError, match=rf"'a.{kind}' cannot be read as an image .*nothing is left out silently"):
        open_images(tmp_path)[0]
    source = open_images(tmp_path, size=32)
    with pytest.raises(ArgumentError, match=rf"(?s)1 of 2 images of .* cannot be used:\n.*'a.{kind}' cannot be read"):
        check_readable(source)
    check_readable(open_images([each for each in [source[1]._replace(label=0)]], labels="label", images="pixels"))


def test_files_that_hold_several_pictures_or_are_not_read_are_named(tmp_path):
    frames = [Image.fromarray(picture(seed=seed)) for seed in range(3)]
    frames[0].save(tmp_path / "pages.tif", save_all=True, append_images=frames[1:])
    with pytest.raises(ArgumentError, match=r"'pages.tif' holds 3 pictures \(pages or frames\)"):
        open_images(tmp_path)[0]
    frames[0].save(tmp_path / "a.gif")
    with pytest.raises(ArgumentError, match=r"1 images of a kind that is not read \('a.gif'.*Convert them"):
        open_images(tmp_path)


def test_folders_without_images_and_wrong_paths_are_told(tmp_path):
    with pytest.raises(ArgumentError, match=r"holds no images \(.bmp, .jpeg, .*, but nothing. Check the path"):
        open_images(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ArgumentError, match=r"holds no images .* but 1 other files, such as 'notes.txt'"):
        open_images(tmp_path)
    with pytest.raises(ArgumentError, match=r"missing' does not exist. Check the path; it starts at"):
        open_images(tmp_path / "missing")
    with pytest.raises(ArgumentError, match=r"notes.txt' must be a folder of images or an .npz file"):
        open_images(str(tmp_path / "notes.txt"))


def test_unequal_shapes_name_two_files_and_the_way_out(tmp_path):
    write(tmp_path / "a.png", picture(12, 10))
    write(tmp_path / "b.png", picture(10, 12))
    advice = r"'a.png' is 12 x 10 and 'b.png' is 10 x 12. Pass size=224"
    with pytest.raises(ArgumentError, match=advice):
        open_images(tmp_path)
    images = [open_images(tmp_path, size=8)[0], StudyImage(torch.zeros(3, 8, 9), 0, "c", 1)]
    with pytest.raises(ArgumentError, match="'a.png' is 3 x 8 x 8 and 'c' is 3 x 8 x 9"):
        collate(images)
    source = open_images([(torch.zeros(3, 8, 8), 0), (torch.zeros(3, 9, 8), 0)])
    with pytest.raises(ArgumentError, match="'0' is 3 x 8 x 8 and '1' is 3 x 9 x 8. Pass size=224"):
        source[1]


def test_arguments_are_checked(tmp_path):
    write(tmp_path / "a.png")
    for settings, message in (
        ({"size": 0}, r"`size` must be a whole number of pixels above 0, .*got 0"),
        ({"size": (224, 256)}, r"crop not above resize, such as \(256, 224\).*got \(224, 256\)"),
        ({"size": 10.5}, "`size` must be a whole number"),
        ({"interpolation": "nearest"}, "`interpolation` must be 'bilinear' or 'bicubic', got 'nearest'"),
        ({"channels": 2}, r"`channels` must be 1 \(grey\), 3 \(colour\) or None.*got 2"),
        ({"num_images": 0}, r"`num_images` must be 1..1, as `data` holds 1 images"),
        ({"num_images": 2}, r"`num_images` must be 1..1, .*got 2"),
        ({"mean": 0.5, "std": 0.5}, "`mean` does not fit this `data`: pictures in files are not normalised"),
        ({"mean": 0.5}, "`mean` and `std` belong together"),
        ({"split": "test"}, "`split` does not fit this `data`: only a LightningDataModule has splits"),
        ({"images": "x"}, "`images` does not fit this `data`: a folder has no keys"),
    ):
        with pytest.raises(ArgumentError, match=message):
            open_images(tmp_path, **settings)
    for data, message in (
        (torch.nn.ReLU(), "`data` is the network ReLU.*the network to StudyModel"),
        (torch.rand(4, 3, 8, 8), r"`data` is an array.*TensorDataset\(images, labels\)"),
        ({"train": [1], "test": [2]}, "'dict' holds several data sets: 'train', 'test'. Pass one of them"),
        (7, "'int' has no length and items"),
        ([], "`data` holds no images"),
    ):
        with pytest.raises(ArgumentError, match=message):
            open_images(data)


def rows(count=6, height=7, width=9):
    return np.stack([picture(height, width, seed) for seed in range(count)])


@pytest.mark.parametrize(
    ("keys", "chosen"),
    [
        (("x_test", "y_test", "x_train", "y_train", "classes"), {}),
        (("test_images", "test_labels", "val_images", "val_labels"), {}),
        (("images", "labels"), {}),
        (("x", "y"), {}),
        (("x_train", "y_train"), {"images": "x_train"}),
        (("foo", "bar"), {"images": "foo", "labels": "bar"}),
    ],
)
def test_arrays_are_found_in_an_npz_file(tmp_path, keys, chosen):
    arrays = dict.fromkeys(keys, np.zeros(1)) | {keys[0]: rows(), keys[1]: np.arange(6)}
    np.savez(tmp_path / "some.npz", **arrays)
    source = open_images(tmp_path / "some.npz", **chosen)
    assert (len(source), source.name) == (6, "some")
    assert [(each.label, each.name) for each in source] == [(number, str(number)) for number in range(6)]
    torch.testing.assert_close(source[4].pixels, as_pixels(rows()[4]), rtol=0, atol=0)


@pytest.mark.parametrize("layout", ["HWC", "CHW", "uint16", "float32", "float16", "normalised", "big endian"])
def test_all_layouts_of_an_npz_file_give_the_same_pixels(tmp_path, layout):
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    images = {
        "HWC": rows(),
        "CHW": rows().transpose(0, 3, 1, 2),
        "uint16": rows().astype(np.uint16) * 257,
        "float32": (rows() / 255).astype(np.float32),
        "float16": (rows() / 255).astype(np.float16),
        "normalised": ((rows() / 255 - mean) / std).astype(np.float32),
        "big endian": (rows() / 255).astype(">f4"),
    }[layout]
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(6).reshape(6, 1).astype(np.uint8))
    settings = {"mean": mean.tolist(), "std": std.tolist()} if layout == "normalised" else {}
    source = open_images(tmp_path / "a.npz", **settings)
    for number, each in enumerate(source):
        assert each.label == number
        tolerance = 5e-4 if layout == "float16" else 1e-6
        torch.testing.assert_close(each.pixels, as_pixels(rows()[number]), rtol=0, atol=tolerance)


def test_grey_arrays_keep_one_channel_unless_asked(tmp_path):
    from sklearn.datasets import load_digits

    digits = load_digits()
    np.savez(tmp_path / "digits.npz", x=digits.images / 16, y=digits.target)
    source = open_images(tmp_path / "digits.npz", num_images=100)
    assert source[0].pixels.shape == (1, 8, 8)
    assert [int(each.name) for each in source] == [position * 1797 // 100 for position in range(100)]
    assert all(each.label == digits.target[int(each.name)] for each in source)
    torch.testing.assert_close(source[3].pixels[0], torch.from_numpy(digits.images[53] / 16).float())
    colour = open_images(tmp_path / "digits.npz", channels=3, num_images=4)[2].pixels
    assert colour.shape == (3, 8, 8)
    assert torch.equal(colour[0], colour[2])


@pytest.mark.parametrize(
    ("arrays", "settings", "message"),
    [
        ({"a": 1, "b": 2}, {}, r"which array of .*bad.npz' holds the images; it holds 'a', 'b'. Say so: images="),
        ({"x_train": rows(), "y_train": range(6)}, {}, r"holds the images; it holds 'x_train', 'y_train'"),
        ({"x": rows(), "images": rows(), "y": 1}, {}, r"holds the images; it holds 'x', 'images', 'y'"),
        ({"images": rows(), "truth": range(6)}, {}, r"holds the labels of 'images'; it holds 'images', 'truth'"),
        ({"images": rows(), "labels": range(5)}, {}, r"bad.npz' holds 6 images, but 5 labels"),
        ({"images": rows(), "labels": 3}, {}, r"bad.npz' holds 6 images, but one number"),
        ({"images": rows(), "labels": np.eye(6)}, {}, r"label of '0 in bad.npz' must be one whole number.*argmax"),
        ({"images": rows(), "labels": np.ones(6)}, {}, r"label of '0 in bad.npz' must be one whole number.*got"),
        ({"images": rows(), "labels": list("abcdef")}, {}, r"must be one whole number.*got .*'a'.*class names"),
        ({"images": rows()[0], "labels": 3}, {}, r"got shape \(7, 9, 3\). It looks like one image"),
        ({"images": np.zeros((2, 3)), "labels": [1, 2]}, {}, r"must be \(n, H, W\), .*got shape \(2, 3\)"),
        ({"images": np.zeros((2, 3, 3, 3), np.uint8), "labels": [1, 2]}, {}, "the axis of the channels cannot be told"),
        ({"images": np.zeros((2, 8, 9, 5), np.uint8), "labels": [1, 2]}, {}, "the axis of the channels cannot be told"),
        (
            {"images": rows().astype(int), "labels": range(6)},
            {},
            r"got int64. If its values are 0..255.*astype\('uint8",
        ),
        ({"images": rows().astype(float), "labels": range(6)}, {}, r"They look like 0..255.*mean=0, std=1/255"),
        (
            {"images": rows() / 60 - 2, "labels": range(6)},
            {},
            r"must lie in \[0, 1\].*seems to normalise .*pass the mean=",
        ),
        (
            {"images": rows() / 60 - 2, "labels": range(6)},
            {"mean": 0.5, "std": 0.9},
            r"after mean=\(0.5,\).* were undone",
        ),
        (
            {"images": rows() / 255, "labels": range(6)},
            {"mean": [0.5] * 2, "std": [1] * 2},
            r"one a channel \(3 in '0'\)",
        ),
        ({"images": rows(), "labels": range(6)}, {"mean": 0.5, "std": 0.5}, r"is uint8, which is not normalised"),
        ({"images": rows() * np.nan, "labels": range(6)}, {}, "'0' holds NaN or infinity"),
        ({"images": rows(), "labels": range(6)}, {"labels": "y"}, r"`labels`: .* has no array named 'y'; it holds 'im"),
        ({"images": rows(), "labels": range(6)}, {"images": "x"}, r"`images`: .* has no array named 'x'; it holds 'im"),
        ({"images": rows()[:0], "labels": []}, {}, "`data` holds no images"),
        ({"images": np.array([{}, []], dtype=object), "labels": [1, 2]}, {}, r"array 'images' .* hold Python objects"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, arrays, settings, message):
    np.savez(tmp_path / "bad.npz", **{key: np.asarray(value) for key, value in arrays.items()})
    with pytest.raises(ArgumentError, match=message) as caught:
        open_images(tmp_path / "bad.npz", **settings)
    assert isinstance(caught.value, UnknownNameError) == ("no array named" in message)


def test_files_that_are_no_npz_are_refused(tmp_path):
    file = tmp_path / "a.npz"
    file.write_bytes(b"text")
    with pytest.raises(ArgumentError, match=r"a.npz' cannot be read as an .npz file .*np.savez"):
        open_images(file)
    with file.open("wb") as stream:
        np.save(stream, rows())
    with pytest.raises(ArgumentError, match=r"a.npz' holds a single array"):
        open_images(file)
    np.savez(file, images=rows())
    assert open_images(file)[2].label == -1
    content = bytearray(file.read_bytes())
    content[400] ^= 255
    file.write_bytes(content)
    with pytest.raises(ArgumentError, match=r"array 'images' of .* cannot be read .*may be damaged"):
        open_images(file)


class Items(Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, position):
        item = self.items[position]
        return item() if callable(item) else item


Named = collections.namedtuple("Named", ["target", "image"])


def item_kinds():
    array, label = picture(8, 9, 4), 5
    normalised = (as_pixels(array) - 0.5) / 0.25
    image = Image.fromarray(array)
    return {
        "picture": ((image, label), {}),
        "array": ((array, label), {}),
        "tensor": ((as_pixels(array), torch.tensor(label)), {}),
        "uint8 tensor": ((torch.from_numpy(array).permute(2, 0, 1), torch.tensor([label])), {}),
        "last": ((torch.from_numpy(array), np.int64(label)), {}),
        "normalised": ((normalised, label), {"mean": 0.5, "std": 0.25}),
        "more": ([image, label, "meta"], {}),
        "dict": ({"image": image, "label": label, "id": "a"}, {}),
        "hugging face": ({"pixel_values": as_pixels(array), "labels": label}, {}),
        "named": ({"scan": image, "coarse": 9, "fine": label}, {"images": "scan", "labels": "fine"}),
        "record": (Named(label, image), {}),
    }


@pytest.mark.parametrize("kind", item_kinds())
def test_items_of_all_kinds_give_the_same_pixels_and_label(kind):
    item, settings = item_kinds()[kind]
    source = open_images(Items([item] * 3), **settings)
    assert (source.name, len(source), source[2].name, source[2].index) == ("Items", 3, "2", 2)
    assert source[1].label == 5
    torch.testing.assert_close(source[1].pixels, as_pixels(picture(8, 9, 4)), rtol=0, atol=1e-6)


def test_channels_of_arrays_are_kept_or_changed_as_asked():
    colour = as_pixels(picture())
    see_through = torch.cat([colour, torch.zeros(1, 12, 10)])
    see_through[3, :, 5:] = 0.25
    assert open_images([see_through])[0].pixels.shape[0] == 4
    expected = colour.clone()
    expected[:, :, :5] = 1
    expected[:, :, 5:] = 0.25 * colour[:, :, 5:] + 0.75
    torch.testing.assert_close(open_images([see_through], channels=3)[0].pixels, expected)
    grey = np.array(Image.fromarray(picture()).convert("L")) / 255
    found = open_images([colour], channels=1)[0].pixels
    torch.testing.assert_close(found[0], torch.from_numpy(grey).float(), rtol=0, atol=1.01 / 255)


@pytest.mark.parametrize("item", [as_pixels(picture()), (as_pixels(picture()),), {"image": picture(), "id": "a"}])
def test_items_without_labels_have_unknown_ones(item):
    assert open_images([item])[0].label == -1
    assert open_images([item], labels="none")[0].label == -1


@pytest.mark.parametrize(
    ("item", "settings", "message"),
    [
        (
            {"scan": picture(), "label": 1},
            {},
            r"`images`: item 0 has 0 entries that may be it; it holds 'scan', 'label'",
        ),
        (
            {"image": picture(), "fine": 1, "coarse": 2},
            {},
            r"`labels`: item 0 has 0 entries .*'fine', 'coarse'.*'none'",
        ),
        ({"image": picture(), "label": 1, "y": 2}, {}, r"`labels`: item 0 has 2 entries that may be it"),
        ({"image": picture(), "label": 1}, {"labels": "y"}, r"`labels`: item 0 has no entry 'y'; it holds 'label'"),
        ({"image": picture(), "label": 1}, {"images": "x"}, r"`images`: item 0 has no entry 'x'"),
        ((picture(), 1), {"images": "x"}, r"item 0 of 'list' is a tuple. Leave them out"),
        (("a.png", 1), {}, r"the image of item 0 of 'list' must be a PIL picture, .*got a str"),
        ((picture(), "cat"), {}, r"the label of '0' must be one whole number.*got 'cat'"),
        ((picture(), 1.0), {}, r"the label of '0' must be one whole number.*got 1.0"),
        ((picture(), torch.eye(3)[0]), {}, r"the label of '0' .*got shape \(3,\).*argmax"),
        ((picture(), -2), {}, r"the label of '0' .*got -2"),
        ((as_pixels(picture()) * 4 - 2, 1), {}, r"'0' must lie in \[0, 1\].*seems to normalise"),
        (
            (Image.fromarray(picture()), 1),
            {"mean": 0.5, "std": 0.5},
            r"item 0 of 'list' is a picture, .*not normalised",
        ),
        ((torch.rand(2, 3, 8, 8), 1), {}, r"'0' must be one image .*got shape \(2, 3, 8, 8\)"),
        ((torch.rand(2, 8, 8), 1), {"channels": 3}, r"'0' has 2 channels, which cannot be made into channels=3"),
        ((torch.rand(3, 0, 8), 1), {}, r"'0' has no pixels"),
    ],
)
def test_items_that_do_not_fit_are_refused(item, settings, message):
    with pytest.raises(ArgumentError, match=message):
        open_images([item], **settings)


def test_an_item_that_fails_is_named():
    def fail():
        raise OSError("image file is truncated")

    source = open_images(Items([(picture(), 0), (picture(), 1), fail]), num_images=1)
    assert len(source) == 1
    with pytest.raises(ArgumentError, match=r"item 2 of 'Items' cannot be read \(OSError: image file is truncated\)"):
        open_images(Items([(picture(), 0), (picture(), 1), fail]))


def test_an_item_that_is_a_damaged_picture_is_named(tmp_path):
    write(tmp_path / "a.png", picture(64, 64))
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:2000])
    with Image.open(tmp_path / "a.png") as lazy, pytest.raises(ArgumentError, match=r"'0' cannot be read as an image"):
        open_images([(lazy, 0)])


def test_random_transforms_are_found_out():
    generator = torch.Generator().manual_seed(1)
    with pytest.raises(ArgumentError, match=r"item 0 of 'Items' is different each time it is read.*random transforms"):
        open_images(Items([lambda: (torch.rand(3, 8, 8, generator=generator), 0)] * 5))


class Stream(IterableDataset):
    def __iter__(self):
        return iter([(picture(), 0)])


@pytest.mark.parametrize("data", [Stream(), DataLoader(Stream()), (each for each in [1])])
def test_iterable_data_sets_are_refused(data):
    with pytest.raises(ArgumentError, match="Pass a map-style data set, or write the images to a folder"):
        open_images(data)


def test_a_data_loader_stands_for_its_data_set():
    loader = DataLoader(TensorDataset(torch.rand(5, 3, 8, 8), torch.arange(5)), batch_size=2, shuffle=True)
    assert [each.label for each in open_images(loader)] == [0, 1, 2, 3, 4]


def data_module(**loaders):
    lightning = pytest.importorskip("lightning.pytorch")

    class Module(lightning.LightningDataModule):
        def __init__(self):
            super().__init__()
            self.calls = []

        def prepare_data(self):
            self.calls.append("prepare")

        def setup(self, stage):
            self.calls.append(stage)

    for name, give in loaders.items():
        setattr(Module, f"{name}_dataloader", give)
    return Module()


def loader(first):
    return lambda self: DataLoader(TensorDataset(torch.rand(3, 3, 8, 8), torch.arange(first, first + 3)))


def test_a_data_module_gives_its_test_data():
    module = data_module(test=loader(10), val=loader(20), train=loader(30))
    source = open_images(module)
    assert [each.label for each in source] == [10, 11, 12]
    assert (module.calls, source.name) == (["prepare", "test"], "Module")
    assert [each.label for each in open_images(module, split="validate")] == [20, 21, 22]
    only = data_module(val=lambda self: [loader(20)(self)], train=loader(30))
    assert open_images(only)[0].label == 20
    assert only.calls == ["prepare", "validate"]
    assert open_images(data_module(predict=lambda self: {"a": loader(40)(self)}), name="mine").name == "mine"


def test_data_modules_that_do_not_fit_are_refused():
    def fail(self):
        raise RuntimeError("no disk")

    for module, settings, message in (
        (data_module(train=loader(0)), {}, r"Module has no test, validation or prediction data; splits .*: none"),
        (data_module(val=loader(0)), {"split": "test"}, r"no data for split='test'; splits with a loader: 'validate'"),
        (data_module(val=loader(0)), {"split": "fit"}, r"`split` must be one of \('test', 'validate', 'predict'\)"),
        (data_module(test=lambda self: [loader(0)(self)] * 2), {}, r"Module.test_dataloader\(\) gives 2 loaders"),
        (data_module(test=lambda self: DataLoader(Stream())), {}, "got the iterable Stream"),
        (data_module(test=lambda self: None), {}, "must hold a map-style data set, got a NoneType"),
        (
            data_module(test=fail),
            {},
            r"Module could not be set up for 'test' \(RuntimeError: no disk\).*setup\('test'\)",
        ),
    ):
        with pytest.raises(ArgumentError, match=message):
            open_images(module, **settings)


def sources(folder):
    for seed in range(3):
        write(folder / "files" / f"{seed}.png", picture(seed=seed))
    np.savez(folder / "a.npz", x=rows(3), y=np.arange(3))
    yield open_images(folder / "files", labels=r"(\d)")
    yield open_images(folder / "a.npz")
    yield open_images(TensorDataset(torch.from_numpy(rows(3)).permute(0, 3, 1, 2), torch.arange(3)))


def test_sources_travel_to_other_processes(tmp_path):
    for source in sources(tmp_path):
        copy = pickle.loads(pickle.dumps(source))
        assert copy.fingerprint() == source.fingerprint()
        batch = list(DataLoader(source, 2, collate_fn=collate, num_workers=1, multiprocessing_context="fork"))[1]
        assert (batch.labels.tolist(), batch.indices.tolist()) == ([2], [2])
        assert batch.names == (source[2].name,)
        torch.testing.assert_close(batch.pixels[0], source[2].pixels, rtol=0, atol=0)
        with pytest.raises(IndexError):
            source[3]
        assert source[-1].index == 2
        assert len(list(source)) == 3


def test_fingerprints_see_all_that_is_shown(tmp_path):
    first = list(sources(tmp_path / "a"))
    found = [source.fingerprint() for source in first]
    assert len(set(found)) == 3
    assert [source.fingerprint() for source in sources(tmp_path / "b")] == found
    others = [
        open_images(tmp_path / "a" / "files"),
        open_images(tmp_path / "a" / "files", labels=r"(\d)", size=8),
        open_images(tmp_path / "a" / "files", labels=r"(\d)", channels=1),
        open_images(tmp_path / "a" / "files", labels=r"(\d)", num_images=2),
        open_images(tmp_path / "a" / "a.npz", labels="none"),
        open_images(tmp_path / "a" / "a.npz", num_images=2),
        open_images(tmp_path / "a" / "a.npz", size=5),
        open_images(TensorDataset(torch.from_numpy(rows(3)).permute(0, 3, 1, 2))),
    ]
    assert len({each.fingerprint() for each in others} | set(found)) == 11
    brighter = rows(3)
    brighter[2, 0, 0, 0] ^= 1
    np.savez(tmp_path / "a" / "a.npz", x=brighter, y=np.arange(3))
    assert open_images(tmp_path / "a" / "a.npz").fingerprint() not in found
    items = TensorDataset(torch.from_numpy(brighter).permute(0, 3, 1, 2), torch.arange(3))
    assert open_images(items).fingerprint() not in found
    (tmp_path / "a" / "files" / "1.png").rename(tmp_path / "a" / "files" / "9.png")
    assert open_images(tmp_path / "a" / "files", labels=r"(\d)").fingerprint() not in found
    with pytest.raises(ArgumentError, match=r"'1.png' cannot be read any more"):
        first[0].fingerprint()
    (tmp_path / "a" / "files" / "9.png").rename(tmp_path / "a" / "files" / "1.png")
    content = bytearray((tmp_path / "a" / "files" / "1.png").read_bytes())
    content[-20] ^= 1
    (tmp_path / "a" / "files" / "1.png").write_bytes(content)
    assert first[0].fingerprint() != found[0]


def test_fingerprints_do_not_depend_on_the_process(tmp_path):
    found = list(sources(tmp_path))
    expected = [source.fingerprint() for source in found]
    (tmp_path / "pickled").write_bytes(pickle.dumps(found))
    code = (
        "import pickle, sys\nfrom lightning_camrobust.study.source import open_images\n"
        "assert not {'lightning', 'matplotlib', 'torchvision', 'PIL'} & set(sys.modules)\n"
        f"for each in pickle.load(open({str(tmp_path / 'pickled')!r}, 'rb')): print(each.fingerprint())\n"
        f"print(open_images({str(tmp_path / 'files')!r}, labels=r'(\\d)').fingerprint())\n"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert found.returncode == 0, found.stderr
    assert found.stdout.split() == [*expected, expected[0]]


def test_an_empty_batch_is_refused():
    with pytest.raises(ArgumentError, match="`images` must hold at least one image, got none"):
        collate([])


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs data in shared/ beside the checkout")
def test_real_images_are_read():
    photographs = open_images(SHARED / "imagenet-sample-224", labels=r"^(\d+)_n", num_images=20)
    assert [each.label for each in photographs] == list(range(0, 1000, 50))
    assert re.fullmatch(r"0050_n\d{8}\.jpg", photographs[1].name)
    file = SHARED / "imagenet-sample-224" / photographs[1].name
    expected = as_pixels(np.array(Image.open(file).convert("RGB")))
    torch.testing.assert_close(photographs[1].pixels, expected, rtol=0, atol=0)
    check_readable(photographs)
    cifar = open_images(SHARED / "cifar10-subset.npz", num_images=100)
    arrays = np.load(SHARED / "cifar10-subset.npz")
    assert cifar[7].label == arrays["y_test"][140]
    torch.testing.assert_close(cifar[7].pixels, as_pixels(arrays["x_test"][140]), rtol=0, atol=0)
