# SPDX-License-Identifier: BSD-3-Clause
"""What the checks of the tree share: the C files of a tree, C text without comments, TAP.

A check takes the tree to look at as its argument, this one by default, so that its own test can
give it a planted one.
"""
import glob
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TOKEN = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)


def tree():
    return os.path.abspath(sys.argv[1]) if len(sys.argv) > 1 else ROOT


def c_files(root, *dirs):
    found = []
    for d in dirs:
        for ext in ("c", "h"):
            found += glob.glob(os.path.join(root, d, "**", "*." + ext), recursive=True)
    return sorted(os.path.relpath(f, root) for f in found)


def read(root, path):
    with open(os.path.join(root, path), encoding="utf-8") as f:
        return f.read()


def code_only(text, keep_strings=False):
    """Comments, and the insides of strings, become blanks; line numbers stay."""
    def blank(m):
        t = m[0]
        if t[0] == "/":
            return re.sub(r"[^\n]", " ", t)
        return t if keep_strings else t[0] + " " * (len(t) - 2) + t[-1]
    return TOKEN.sub(blank, text)


def line_of(text, pos):
    return text.count("\n", 0, pos) + 1


class Tap:
    """One case for each rule; the faults found are its diagnostics."""

    def __init__(self):
        self.number = 0
        self.failed = False

    def case(self, name, faults):
        self.number += 1
        print("%s %d - %s" % ("not ok" if faults else "ok", self.number, name))
        for f in faults:
            print("#   " + f)
        self.failed |= bool(faults)

    def skip(self, name, reason):
        self.number += 1
        print("ok %d - %s # SKIP %s" % (self.number, name, reason))

    def end(self):
        print("1..%d" % self.number)
        sys.exit(1 if self.failed else 0)
