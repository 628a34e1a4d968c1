"""Every kind of pixels that a file may hold: its picture is right to the level, or it is refused.

Files are written byte by byte (image_files.py) and compared with the formats' own formulas, not
with another decoder. Levels are those of 8 bits; ±1 where two roundings meet.
"""

import binascii
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from agiqa.data.images import ImageError, as_rgb, decode
from kit.image_files import bmp, chunk, exif, gif, packed, png, tiff

H, W = 5, 7
rng = np.random.default_rng(14)


@dataclass(frozen=True)
class Known:
    """A file and the pixels that it must give."""

    name: str
    content: bytes
    pixels: np.ndarray  # (H, W, 3)
    tolerance: int = 0  # levels


@dataclass(frozen=True)
class Refused:
    """A file that nobody can show rightly."""

    name: str
    content: bytes
    reason: str


def samples(bits: int, channels: int = 1) -> np.ndarray:
    """Random samples `(H, W, C)`, the lowest and highest among them."""
    made = rng.integers(0, 1 << bits, (H, W, channels))
    made[0, 0], made[-1, -1] = 0, (1 << bits) - 1
    return made


def levels(stored: np.ndarray, bits: int) -> np.ndarray:
    """To 0…255, to the nearest."""
    return np.floor(stored / ((1 << bits) - 1) * 255 + 0.5).astype(int)


def grey(values: np.ndarray) -> np.ndarray:
    """`(H, W, 1)` as colours."""
    return np.repeat(values, 3, axis=-1)


def on_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Levels mixed with white by an alpha from 0 to 1."""
    return np.rint(colours * alpha + 255 * (1 - alpha)).astype(int)


def naive_cmyk(stored: np.ndarray, most: int) -> np.ndarray:
    share = stored / most
    return np.rint(255 * (1 - share[..., :3]) * (1 - share[..., 3:])).astype(int)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def of_png() -> Iterator[Known]:
    for bits in (1, 2, 4, 8, 16):
        stored = samples(bits)
        yield Known(f"PNG grey {bits}", png(stored, bits, 0), grey(levels(stored, bits)))
        hole = int(stored[2, 3, 0])
        trns = chunk(b"tRNS", hole.to_bytes(2, "big"))
        rgb = np.where(stored == hole, 255, levels(stored, bits))
        yield Known(f"PNG grey {bits} tRNS", png(stored, bits, 0, trns), grey(rgb))
    for bits in (1, 2, 4, 8):
        stored = samples(bits)
        table = rng.integers(0, 256, (1 << bits, 3))
        alpha = rng.integers(0, 256, 1 << bits)
        plte = chunk(b"PLTE", table.astype(np.uint8).tobytes())
        colours = table[stored[..., 0]]
        yield Known(f"PNG palette {bits}", png(stored, bits, 3, plte), colours)
        transparent = int(stored[2, 3, 0])
        trns = chunk(b"tRNS", b"\xff" * transparent + b"\0")
        rgb = np.where(stored == transparent, 255, colours)
        yield Known(f"PNG palette {bits} one tRNS", png(stored, bits, 3, plte, trns), rgb)
        trns = chunk(b"tRNS", alpha.astype(np.uint8).tobytes())
        rgb = on_white(colours, alpha[stored] / 255)
        yield Known(f"PNG palette {bits} soft tRNS", png(stored, bits, 3, plte, trns), rgb, 1)
        few = (1 << bits) // 2  # the rest is opaque
        trns = chunk(b"tRNS", alpha[:few].astype(np.uint8).tobytes())
        rgb = on_white(colours, np.where(stored < few, alpha[stored], 255) / 255)
        yield Known(f"PNG palette {bits} short tRNS", png(stored, bits, 3, plte, trns), rgb, 1)
    for bits in (8, 16):
        most = (1 << bits) - 1
        stored = samples(bits, 3)
        shown = levels(stored, bits)
        yield Known(f"PNG RGB {bits}", png(stored, bits, 2), shown)
        hole = stored[2, 3]
        trns = chunk(b"tRNS", b"".join(int(value).to_bytes(2, "big") for value in hole))
        rgb = np.where((stored == hole).all(axis=-1, keepdims=True), 255, shown)
        yield Known(f"PNG RGB {bits} tRNS", png(stored, bits, 2, trns), rgb)
        for kind, channels in ((4, 1), (6, 3)):
            stored = samples(bits, channels + 1)
            rgb = on_white(stored[..., :-1] / most * 255, stored[..., -1:] / most)
            rgb = grey(rgb) if channels == 1 else rgb
            name = "LA" if channels == 1 else "RGBA"
            yield Known(f"PNG {name} {bits}", png(stored, bits, kind), rgb, 1)
    stored = samples(8, 3)
    gamma, profile = chunk(b"gAMA", (100_000).to_bytes(4, "big")), chunk(b"iCCP", b"p3\0\0junk")
    yield Known("PNG gamma is ignored", png(stored, 8, 2, gamma), stored)
    yield Known("PNG profile is ignored", png(stored, 8, 2, profile), stored)


def of_tiff() -> Iterator[Known]:
    for order, hows in (("<", [1]), (">", [1, 8])):
        for how in hows:
            packing = {"order": order, "packed_as": how}
            about = f"TIFF {'II' if order == '<' else 'MM'} {'raw' if how == 1 else 'Deflate'}"
            for bits in (1, 2, 4, 8, 16):
                stored = samples(bits)
                shown = levels(stored, bits)
                content = tiff(stored, bits, 1, **packing, strip_rows=2)
                yield Known(f"{about} grey {bits}", content, grey(shown))
                if not (order == ">" and bits == 16):  # see of_refused
                    content = tiff(stored, bits, 0, **packing)
                    yield Known(f"{about} white is 0 {bits}", content, grey(255 - shown))
            for bits in (1, 2, 4, 8):
                stored = samples(bits)
                table = rng.integers(0, 256, (1 << bits, 3))
                content = tiff(stored, bits, 3, **packing, tags=[(320, (table.T * 257).ravel())])
                yield Known(f"{about} palette {bits}", content, table[stored[..., 0]])
            for bits in (8, 16):
                most = (1 << bits) - 1
                stored = samples(bits, 3)
                content = tiff(stored, bits, 2, **packing, strip_rows=2)
                yield Known(f"{about} RGB {bits}", content, levels(stored, bits))
                if bits == 8:
                    content = tiff(stored, bits, 2, **packing, strip_rows=2, planar=True)
                    name = f"{about} RGB {bits} in planes"
                    yield Known(name, content, levels(stored, bits))
                stored = samples(bits, 4)
                shown, alpha = levels(stored[..., :3], bits), stored[..., 3:] / most
                for extra, rgb in ((0, shown), (2, on_white(stored[..., :3] / most * 255, alpha))):
                    content = tiff(stored, bits, 2, **packing, tags=[(338, [extra])])
                    yield Known(f"{about} RGB+{extra} {bits}", content, rgb, extra // 2)
                within = stored.copy()  # associated alpha: no colour above it
                within[..., :3] = np.minimum(within[..., :3], within[..., 3:])
                rgb = np.rint(255 * (within[..., :3] / most + 1 - alpha)).astype(int)
                content = tiff(within, bits, 2, **packing, tags=[(338, [1])])
                yield Known(f"{about} RGB+1 {bits}", content, rgb, 2)
                rgb = naive_cmyk(stored, most)
                yield Known(f"{about} CMYK {bits}", tiff(stored, bits, 5, **packing), rgb, 1)
            stored = samples(8, 2)
            rgb = grey(on_white(stored[..., :1], stored[..., 1:] / 255))
            yield Known(f"{about} LA", tiff(stored, 8, 1, **packing, tags=[(338, [2])]), rgb, 1)
            content = tiff(stored, 8, 1, **packing, tags=[(338, [0])])
            yield Known(f"{about} grey and another", content, grey(stored[..., :1]))
            within = np.minimum(stored, stored[..., 1:])
            rgb = grey(within[..., :1] + 255 - within[..., 1:])
            yield Known(f"{about} La", tiff(within, 8, 1, **packing, tags=[(338, [1])]), rgb, 2)
            stored = samples(8, 2)
            table = rng.integers(0, 256, (256, 3))
            rgb = on_white(table[stored[..., 0]], stored[..., 1:] / 255)
            extra = [(320, (table.T * 257).ravel()), (338, [2])]
            yield Known(f"{about} PA", tiff(stored, 8, 3, **packing, tags=extra), rgb, 1)
    stored = samples(12)
    yield Known("TIFF grey 12", tiff(stored, 12, 1), grey(levels(stored, 12)))
    stored = samples(8, 3)
    yield Known("BigTIFF", tiff(stored, 8, 2, big=True, strip_rows=2), stored)
    y, cb, cr = (stored[..., [at]].astype(float) for at in range(3))
    red, blue = y + 1.402 * (cr - 128), y + 1.772 * (cb - 128)
    green = y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128)
    rgb = np.clip(np.rint(np.concatenate([red, green, blue], -1)), 0, 255).astype(int)
    for how in (1, 8):
        content = tiff(stored, 8, 6, packed_as=how, tags=[(530, [1, 1])])
        yield Known(f"TIFF YCbCr {how}", content, rgb, 2)


def of_bmp() -> Iterator[Known]:
    for bits in (1, 4, 8):
        for colours in (1 << bits, 2):
            stored = rng.integers(0, colours, (H, W, 1))
            table = rng.integers(0, 256, (colours, 4))
            tables = {"colours": table, "grey": np.repeat(np.arange(colours)[:, None], 4, 1)}
            tables["black and white"] = np.repeat(np.array([[0], [255]]), 4, 1)
            for name, table in tables.items():
                if len(table) != colours:
                    continue
                rows = _padded(packed(stored[::-1, :, 0], bits))
                content = bmp(
                    rows, (W, H), bits, palette=table.astype(np.uint8).tobytes(), colours=colours
                )
                rgb = table[stored[..., 0]][..., 2::-1]
                yield Known(f"BMP {bits}, {colours} {name}", content, rgb)
    stored = samples(8, 4)
    bgr = np.ascontiguousarray(stored[::-1, :, 2::-1]).astype(np.uint8)
    yield Known("BMP 24", bmp(_padded(bgr.tobytes()), (W, H), 24), stored[..., :3])
    content = bmp(_padded(bgr[::-1].tobytes()), (W, -H), 24)
    yield Known("BMP 24 from the top", content, stored[..., :3])
    bgra = np.ascontiguousarray(stored[::-1, :, [2, 1, 0, 3]]).astype(np.uint8).tobytes()
    yield Known("BMP 32", bmp(bgra, (W, H), 32), stored[..., :3])
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    rgb = on_white(stored[..., :3], stored[..., 3:] / 255)
    yield Known("BMP 32 with alpha", bmp(bgra, (W, H), 32, compression=3, masks=masks), rgb, 1)
    for name, widths, masks in (("555", (5, 5, 5), (0x7C00, 0x3E0, 0x1F, 0)),
                                ("565", (5, 6, 5), (0xF800, 0x7E0, 0x1F, 0))):  # fmt: skip
        parts = np.concatenate([rng.integers(0, 1 << bits, (H, W, 1)) for bits in widths], -1)
        rgb = np.concatenate([levels(parts[..., [at]], widths[at]) for at in range(3)], -1)
        word = parts[..., 0] << widths[1] + 5 | parts[..., 1] << 5 | parts[..., 2]
        rows = _padded(word[::-1].astype("<u2").tobytes())
        yield Known(f"BMP {name}", bmp(rows, (W, H), 16, compression=3, masks=masks), rgb, 1)
    run = bytes([3, 7, 4, 9, 0, 0]) * (H - 1) + bytes([0, 7, 1, 2, 3, 4, 5, 6, 7, 0, 0, 1])
    table = rng.integers(0, 256, (256, 4))
    indices = np.array([[1, 2, 3, 4, 5, 6, 7]] + [[7] * 3 + [9] * 4] * (H - 1))
    content = bmp(run, (W, H), 8, compression=1, palette=table.astype(np.uint8).tobytes())
    yield Known("BMP run lengths", content, table[indices][..., 2::-1])


def _padded(rows: bytes) -> bytes:
    stride = len(rows) // H
    lines = (rows[at : at + stride] for at in range(0, len(rows), stride))
    return b"".join(line.ljust((stride + 3) // 4 * 4, b"\0") for line in lines)


def of_pnm() -> Iterator[Known]:
    for most in (1, 15, 100, 255, 1023, 4095, 65535):
        for kind, channels in (("5", 1), ("6", 3)):
            stored = rng.integers(0, most + 1, (H, W, channels))
            rgb = np.floor(stored / most * 255 + 0.5).astype(int)
            rgb = grey(rgb) if channels == 1 else rgb
            head = f"P{kind}\n# by hand\n{W} {H}\n{most}\n".encode()
            content = head + packed(stored.reshape(H, -1), 8 if most < 256 else 16)
            yield Known(f"P{kind} maxval {most}", content, rgb)
    stored = samples(1)
    content = f"P4 {W} {H}\n".encode() + packed(stored[..., 0], 1)
    yield Known("P4", content, grey(255 - 255 * stored))
    stored = samples(8, 3)
    text = " ".join(map(str, stored.ravel()))
    yield Known("P3", f"P3 {W} {H} 255\n{text}\n".encode(), stored)


def of_gif() -> Iterator[Known]:
    table = rng.integers(0, 256, (128, 3))
    stored, other = rng.integers(0, 128, (2, H, W))
    hole = int(stored[2, 3])
    first, second = (stored, (0, 0), None), (other, (0, 0), 5)
    yield Known("GIF", gif([first], (W, H), table), table[stored])
    yield Known("GIF, first of two frames", gif([first, second], (W, H), table), table[stored])
    rgb = np.where((stored == hole)[..., None], 255, table[stored])
    content = gif([(stored, (0, 0), hole), second], (W, H), table)
    yield Known("GIF with a transparent colour", content, rgb)
    for name, transparent in (("opaque", None), ("transparent", hole)):
        rgb = np.full((H + 5, W + 4, 3), 255)
        rgb[2 : 2 + H, 3 : 3 + W] = table[stored]
        if transparent is not None:
            rgb[2 : 2 + H, 3 : 3 + W][stored == hole] = 255
        content = gif([(stored, (3, 2), transparent)], (W + 4, H + 5), table)
        yield Known(f"GIF, {name} frame within its screen", content, rgb)
    ramp = np.repeat(np.arange(128)[:, None], 3, 1)
    content = gif([(stored, (0, 0), hole)], (W, H), ramp)
    rgb = np.where(stored == hole, 255, stored)[..., None]
    yield Known("GIF grey with a transparent level", content, grey(rgb))


def of_lossy() -> Iterator[Known]:
    """What only an encoder can write: one colour, or without loss."""
    colour = np.broadcast_to(np.array([200, 90, 30]), (16, 16, 3)).astype(np.uint8)
    flat = Image.fromarray(colour)
    for name, options in {
        "baseline": {"subsampling": 0},
        "4:2:0": {"subsampling": 2},
        "progressive": {"progressive": True},
        "RGB": {"keep_rgb": True},
    }.items():
        yield Known(f"JPEG {name}", saved(flat, "JPEG", quality=98, **options), colour, 3)
    one = flat.convert("L")
    yield Known("JPEG grey", saved(one, "JPEG", quality=98), grey(np.asarray(one)[..., None]), 2)
    ink = np.array([30, 120, 200, 60])
    cmyk = Image.new("CMYK", (16, 16), tuple(ink))
    rgb = np.broadcast_to(naive_cmyk(ink[None, None], 255), (16, 16, 3))
    yield Known("JPEG CMYK, Adobe's", saved(cmyk, "JPEG", quality=98), rgb, 3)
    # YCCK: the YCbCr of 255 - C, M, Y, all stored inverted as Adobe does; its transform is 2
    colours = Image.fromarray(np.broadcast_to(np.uint8(ink[:3]), (16, 16, 3)).copy())
    stored = [*np.asarray(colours.convert("YCbCr"))[0, 0], 255 - ink[3]]
    ycck = saved(
        Image.new("CMYK", (16, 16), tuple(255 - int(v) for v in stored)), "JPEG", quality=98
    )
    assert ycck.count(b"Adobe\0\x64\0\0\0\0\0") == 1
    ycck = ycck.replace(b"Adobe\0\x64\0\0\0\0\0", b"Adobe\0\x64\0\0\0\0\2")
    yield Known("JPEG YCCK, Adobe's", ycck, rgb, 5)
    stored = samples(8, 4).astype(np.uint8)
    rgb = on_white(stored[..., :3].astype(int), stored[..., 3:] / 255)
    rgba = Image.fromarray(stored)
    for kind in ("WEBP", "TIFF"):
        options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
        yield Known(f"{kind} RGBA", saved(rgba, kind, **options), rgb, 1)
        yield Known(f"{kind} RGB", saved(rgba.convert("RGB"), kind, **options), stored[..., :3])
    palette = rgba.convert("RGB").quantize(16)
    content = saved(palette, "WEBP", lossless=True)
    yield Known("WEBP of a palette", content, np.asarray(palette.convert("RGB")))
    frames = [rgba, Image.new("RGBA", (W, H), "red")]
    content = saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    yield Known("WEBP, first of two frames", content, rgb, 1)


KNOWN = [*of_png(), *of_tiff(), *of_bmp(), *of_pnm(), *of_gif(), *of_lossy()]
RANGE = "whose range is not known: save it as 8-bit RGB"


def of_refused() -> Iterator[Refused]:
    for order in "<>":
        content = tiff(rng.integers(0, 2**31, (H, W, 1)), 32, 1, order)
        yield Refused(f"TIFF {order}u4", content, f"32-bit pixels, {RANGE}")
        for bits in (8, 16, 32):
            content = tiff(samples(min(bits, 30)), bits, 1, order, tags=[(339, [2])])
            reason = f"signed {bits}-bit pixels, {RANGE}"
            yield Refused(f"TIFF {order} signed {bits}", content, reason)
        content = tiff(rng.random((H, W, 1)), 32, 1, order, tags=[(339, [3])])
        yield Refused(f"TIFF {order} float", content, f"floating-point 32-bit pixels, {RANGE}")
    yield Refused("TIFF undefined", tiff(samples(8), 8, 1, tags=[(339, [4])]), RANGE)
    yield Refused("TIFF LAB", tiff(samples(8, 3), 8, 8), "save it as 8-bit RGB")
    yield Refused("TIFF raw YCbCr 4:2:0", tiff(samples(8, 3), 8, 6), "save it as 8-bit RGB")
    for how in (1, 8):
        content = tiff(samples(16, 3), 16, 2, planar=True, packed_as=how)
        yield Refused(f"TIFF 16 in planes {how}", content, "colours together")
    yield Refused("TIFF LA 16", tiff(samples(16, 2), 16, 1, tags=[(338, [2])]), "not read")
    yield Refused("TIFF white is 0, 16, MM", tiff(samples(16), 16, 0, ">"), "not read")
    content = tiff(samples(4), 4, 1, tags=[(259, [32809])])
    yield Refused("TIFF ThunderScan", content, "use Deflate")
    yield Refused("PFM", f"Pf\n{W} {H}\n-1.0\n".encode() + b"\0" * 4 * W * H, RANGE)
    yield Refused("PFM colour", f"PF\n{W} {H}\n-1.0\n".encode() + b"\0" * 12 * W * H, RANGE)
    content = bmp(b"\x09" * 4 * H, (4, H), 8, palette=b"\0" * 8, colours=2)
    yield Refused("BMP palette too short", content, "palette")
    masks = (0x3FF, 0xFFC00, 0x3FF00000, 0)
    content = bmp(b"\0" * 4 * W * H, (W, H), 32, compression=3, masks=masks)
    yield Refused("BMP odd masks", content, "nsupported")
    # The header of a 12-bit JPEG alone; no encoder here writes one.
    content = saved(Image.new("L", (8, 8)), "JPEG")
    content = content.replace(b"\xff\xc0\0\x0b\x08", b"\xff\xc1\0\x0b\x0c")
    yield Refused("JPEG 12", content, "12 bits a sample, which is not read")


@pytest.mark.parametrize("case", KNOWN, ids=lambda case: case.name)
def test_the_pixels_are_right(case: Known, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(case.content)  # the bytes count, not the name
    decoded = decode(tmp_path / "a.png")
    assert decoded.mode == "RGB"
    difference = np.abs(np.asarray(decoded).astype(int) - case.pixels)
    assert difference.max() <= case.tolerance, (difference.max(), difference.mean())
    with Image.open(tmp_path / "a.png") as opened:
        assert (np.asarray(as_rgb(opened)) == np.asarray(decoded)).all()  # its file is decoded


def test_what_was_done_to_an_opened_image_counts() -> None:
    frames = [Image.new("RGB", (W, H), colour) for colour in ("red", "blue")]
    image = Image.open(io.BytesIO(saved(frames[0], "GIF", save_all=True, append_images=frames[1:])))
    image.seek(1)
    assert as_rgb(image).getpixel((0, 0)) == (0, 0, 255)
    image = Image.open(io.BytesIO(saved(frames[0].resize((64, 64)), "JPEG", quality=98)))
    image.draft("L", (16, 16))
    assert as_rgb(image).size == (16, 16)
    image = Image.open(io.BytesIO(saved(frames[0], "PNG")))
    assert as_rgb(image).getpixel((0, 0)) == (255, 0, 0)
    image.putpixel((0, 0), (1, 2, 3))
    assert as_rgb(image).getpixel((0, 0)) == (1, 2, 3)
    image = Image.open(io.BytesIO(saved(frames[0], "ICO")))  # a format that files may not have
    assert as_rgb(image).getpixel((0, 0)) == (255, 0, 0)
    stored = samples(16)
    hole = int(stored[2, 3, 0])
    image = Image.open(io.BytesIO(png(stored, 16, 0, chunk(b"tRNS", hole.to_bytes(2, "big")))))
    image.load()
    assert as_rgb(image).getpixel((3, 2)) == (255, 255, 255)


# What a caller may hand over, each made of the grey or colour 100 (with alpha 128, or a palette)
MODES: dict[str, tuple[Any, Any]] = {
    "1": (255, 255),
    "L": (100, 100),
    "LA": ((100, 128), 177),
    "RGB": ((100, 20, 30), (100, 20, 30)),
    "RGBA": ((100, 20, 30, 128), (177, 137, 142)),
    "RGBa": ((50, 10, 15, 128), (177, 137, 142)),
    "La": ((50, 128), 177),
    "RGBX": ((100, 20, 30, 7), (100, 20, 30)),
    "CMYK": ((0, 255, 255, 0), (255, 0, 0)),
    "YCbCr": ((100, 128, 128), 100),
    "HSV": ((0, 255, 100), (100, 0, 0)),
    "I;16": (25700, 100),
    "I;16L": (25700, 100),
    "I;16B": (25700, 100),
    "I;16N": (25700, 100),
    "P": (0, (1, 2, 3)),
    "PA": ((0, 0), 255),
    "I": (100, None),
    "F": (0.5, None),
    "LAB": ((100, 128, 128), None),
}


@pytest.mark.parametrize("mode", MODES)
def test_images_in_memory_follow_the_same_rules(mode: str) -> None:
    value, expected = MODES[mode]
    image = Image.new(mode, (W, H), value)
    if mode in ("P", "PA"):
        image.putpalette([1, 2, 3, 4, 5, 6])
    if expected is None:
        with pytest.raises(ImageError, match="range is not known: save it as 8-bit RGB"):
            as_rgb(image)
        return
    converted = as_rgb(image)
    assert (converted.mode, converted.size) == ("RGB", (W, H))
    assert np.abs(np.asarray(converted).astype(int) - expected).max() <= 1


def test_every_mode_of_pillow_is_among_them() -> None:
    assert set(Image.MODES) <= set(MODES)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "MPO"])
def test_upright_in_every_format_that_has_exif(orientation: int, kind: str) -> None:
    stored = samples(8, 3).astype(np.uint8).repeat(16, 0).repeat(16, 1)
    upright = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: np.rot90(stored, -1),
        7: stored[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(stored),
    }[orientation]
    image, order = Image.fromarray(stored), "<" if orientation % 2 else ">"
    about = exif(orientation, order)
    if kind == "TIFF":
        content = tiff(stored, 8, 2, tags=[(274, [orientation])])
    elif kind == "PNG":
        content = png(stored, 8, 2, chunk(b"eXIf", about))
    elif kind == "WEBP":
        content = saved(image, kind, exif=about, lossless=True)
    else:
        more = {"save_all": True, "append_images": [image]} if kind == "MPO" else {}
        about = b"Exif\0\0" + about
        content = saved(image, kind, exif=about, quality=98, subsampling=0, **more)
    opened, loaded = (Image.open(io.BytesIO(content)) for _ in range(2))
    loaded.load()
    in_memory = [as_rgb(image) for image in (opened, loaded, loaded.convert("RGB"))]
    for decoded in (decode(content), *in_memory, as_rgb(ImageOps.exif_transpose(loaded))):
        assert decoded.size == upright.shape[1::-1]
        difference = np.abs(np.asarray(decoded).astype(int) - upright)
        assert difference.max() <= (24 if kind in ("JPEG", "MPO") else 0)


def test_upright_by_xmp_and_by_text_of_a_png() -> None:
    stored = samples(8, 3)
    xmp = b'<rdf tiff:Orientation="3"/>'
    profile = binascii.hexlify(b"Exif\0\0" + exif(3))
    length = str(len(profile) // 2).encode()
    text = b"\nexif\n" + length.rjust(8) + b"\n" + profile + b"\n"
    keyword, plain = b"XML:com.adobe.xmp\0", b"\0\0\0\0"
    for about in (
        chunk(b"iTXt", keyword + plain + xmp),
        chunk(b"iTXt", keyword + b"\1\0\0\0" + zlib.compress(xmp)),
        chunk(b"tEXt", b"Raw profile type exif\0" + text),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text)),
    ):
        for content in (png(stored, 8, 2, about), png(stored, 8, 2, after=about)):
            loaded = Image.open(io.BytesIO(content))
            loaded.load()
            for image in (decode(content), as_rgb(loaded)):
                assert (np.asarray(image) == stored[::-1, ::-1]).all()


@pytest.mark.parametrize("case", of_refused(), ids=lambda case: case.name)
def test_what_cannot_be_right_is_refused(case: Refused, tmp_path: Path) -> None:
    (tmp_path / "a.tiff").write_bytes(case.content)
    with pytest.raises(ImageError) as caught:
        decode(tmp_path / "a.tiff")
    assert case.reason in caught.value.reason
    assert "\n" not in str(caught.value)
    with pytest.raises(ImageError) as of_bytes:
        decode(case.content)
    assert of_bytes.value.reason == caught.value.reason
