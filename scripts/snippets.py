"""Runs the programs that stand in documents, each in a folder with workflow.json and photo.png.

A block ```python or ```javascript is a program of its own. One marked with file=NAME is kept under that name for
those behind it in the same document.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```(python|javascript)(?: file=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMANDS = {"python": ([sys.executable], ".py"), "javascript": (["node"], ".mjs")}


def main(documents):
    ran = 0
    for document in documents:
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(ROOT / "examples/two_images.json", f"{folder}/workflow.json")
            shutil.copy(ROOT / "testdata/inputs/gradient.png", f"{folder}/photo.png")
            text = pathlib.Path(document).read_text()
            for block in BLOCK.finditer(text):
                language, name, program = block.groups()
                command, ending = COMMANDS[language]
                line = text[: block.start()].count("\n") + 1
                path = pathlib.Path(folder, name or f"line{line}{ending}")
                path.write_text(program)
                if name:
                    continue
                done = subprocess.run(
                    [*command, path],
                    cwd=folder,
                    env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    timeout=120,
                )
                print(f"{document}:{line} {language}: {'ok' if done.returncode == 0 else 'failed'}")
                if done.returncode != 0:
                    sys.exit(done.stdout)
                ran += 1
    if ran == 0:
        sys.exit("there is no program in " + ", ".join(documents))


if __name__ == "__main__":
    main(sys.argv[1:])
