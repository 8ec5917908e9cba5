"""Runs the programs that stand in documents, each in a folder with workflow.json and photo.png.

A block ```python or ```typescript is a program of its own; TypeScript is checked with --strict, too. One
marked with file=NAME is kept under that name for those behind it in the same document.

    snippets.py NODE_MODULES DOCUMENT...
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```(python|typescript)(?: file=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CHECK = ["--strict", "--noEmit", "--target", "es2022", "--module", "nodenext", "--skipLibCheck", "--types", "node"]


def main(modules, documents):
    node = ["node", f"{modules}/typescript/bin/tsc", *CHECK, "--typeRoots", f"{modules}/@types"]
    commands = {
        "python": (".py", [[sys.executable]]),
        "typescript": (".mts", [node, ["node", f"{modules}/tsx/dist/cli.mjs"]]),
    }
    ran = 0
    for document in documents:
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(ROOT / "examples/two_images.json", f"{folder}/workflow.json")
            shutil.copy(ROOT / "testdata/inputs/gradient.png", f"{folder}/photo.png")
            text = pathlib.Path(document).read_text()
            for block in BLOCK.finditer(text):
                language, name, program = block.groups()
                ending, steps = commands[language]
                line = text[: block.start()].count("\n") + 1
                path = pathlib.Path(folder, name or f"line{line}{ending}")
                path.write_text(program)
                if name:
                    continue
                for step in steps:
                    done = subprocess.run(
                        [*step, path],
                        cwd=folder,
                        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
                        stdout=subprocess.PIPE,
                        stderr=subprocess.STDOUT,
                        text=True,
                        timeout=120,
                    )
                    if done.returncode != 0:
                        sys.exit(f"{document}:{line} {language}: failed\n{done.stdout}")
                print(f"{document}:{line} {language}: ok")
                ran += 1
    if ran == 0:
        sys.exit("there is no program in " + ", ".join(documents))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
