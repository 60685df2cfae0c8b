"""Bring the pictures of `experiments/emoji/`: 3,786 emoji of 64x64 pixels.

    python scripts/fetch_emoji.py FOLDER

Needs `npm`, which brings the package `emoji-datasource-google` (74 MB). FOLDER gets `pictures/`, and `emoji.json` with
the category of each. The pictures are those of Noto Color Emoji, under the Apache License 2.0; the package's own code
and data are under the MIT License.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "emoji-datasource-google@16.0.0"
COUNT = 3_786
"""Number of pictures in this version."""


def fetch_archive(folder: Path) -> Path:
    """Bring the package's archive into a folder with npm; return its path."""
    if shutil.which("npm") is None:
        raise SystemExit("npm is missing: install Node.js, or unpack the package's img/google/64/ by hand")
    subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    (archive,) = folder.glob("*.tgz")
    return archive


def unpack_pictures(archive: Path, folder: Path) -> int:
    """Write the pictures of 64x64 pixels and `emoji.json` to a folder; return the number of pictures."""
    pictures = folder / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    count = 0
    with tarfile.open(archive) as package:
        for member in package:
            path = Path(member.name)
            # Only these members are read, and each is written under its last name.
            is_picture = path.parent.as_posix() == "package/img/google/64" and path.suffix == ".png"
            if not is_picture and member.name != "package/emoji.json":
                continue
            source = package.extractfile(member)
            assert source is not None, "a picture is a plain file"
            target = pictures / path.name if is_picture else folder / path.name
            target.write_bytes(source.read())
            count += is_picture
    return count


def main() -> None:
    """Fetch the package and unpack what training needs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    with tempfile.TemporaryDirectory() as temporary:
        count = unpack_pictures(fetch_archive(Path(temporary)), folder)
    if count != COUNT:
        raise SystemExit(f"{folder / 'pictures'} got {count} pictures instead of {COUNT}: the package has changed")
    print(f"{count} pictures in {folder / 'pictures'}")


if __name__ == "__main__":
    main()
