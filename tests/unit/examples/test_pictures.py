"""The example pictures: the committed files are those the script draws, and they are images."""

import json
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from examples.models.drawings import all_captions
from examples.pictures.draw import HERE, MANIFEST, draw_all

CAPTIONS: dict[str, str | None] = json.loads((HERE / MANIFEST).read_text(encoding="utf-8"))
SUFFIXES = {".bmp", ".gif", ".jpg", ".png", ".webp"}


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix in SUFFIXES}


def test_drawing_again_gives_the_same_set(tmp_path: Path) -> None:
    """The script draws the committed names and captions, no more and no fewer."""
    draw_all(tmp_path)

    assert names_in(tmp_path) == names_in(HERE)
    assert names_in(tmp_path / "hostile") == names_in(HERE / "hostile")
    assert json.loads((tmp_path / MANIFEST).read_text(encoding="utf-8")) == CAPTIONS


def test_manifest_names_every_good_picture() -> None:
    """Each good picture has its line in the manifest, and each line its picture."""
    assert set(CAPTIONS) == names_in(HERE)


@pytest.mark.parametrize("name", sorted(CAPTIONS))
def test_good_picture_decodes_and_its_caption_is_of_the_world(name: str) -> None:
    """Pillow decodes the file to its last pixel; its caption is one the models were taught."""
    with Image.open(HERE / name) as image:
        image.load()

    assert CAPTIONS[name] is None or CAPTIONS[name] in all_captions()


def test_turned_pictures_are_upright_once_the_orientation_is_applied() -> None:
    """All are drawn 400 x 320; orientations 5 to 8 are stored the other way round."""
    for orientation in range(2, 9):
        (path,) = HERE.glob(f"exif-{orientation}-*.jpg")
        with Image.open(path) as image:
            assert image.size == ((400, 320) if orientation < 5 else (320, 400))
            assert ImageOps.exif_transpose(image).size == (400, 320)


@pytest.mark.parametrize("name", sorted(names_in(HERE / "hostile")))
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_hostile_file_does_not_decode(name: str) -> None:
    """Pillow refuses each of them, one way or another."""
    refusals = (OSError, SyntaxError, Image.DecompressionBombError)
    with pytest.raises(refusals), Image.open(HERE / "hostile" / name) as image:
        image.load()
