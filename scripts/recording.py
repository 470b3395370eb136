#!/usr/bin/env python3
"""Runs a program and writes what it prints, line by line at its own pace, as an animated SVG.

    recording.py FILE.svg PROGRAM ARGUMENT...

The picture is one tall text behind a window: the animation only moves it up, so that the newest line is the lowest one.
Programs that show no animations show the end.
"""

import pathlib
import subprocess
import sys
import time
from xml.sax.saxutils import escape

COLUMNS, ROWS = 120, 32
WIDTH, HEIGHT = 7.2, 17  # of a character, in pixels
MARGIN = 12
SECONDS = 30  # at most, with a pause at the end
PAUSE = 5
SHORTEST, LONGEST = 0.08, 2  # between two lines, before the whole is made to fit


def record(command):
    """The lines that a command prints, and the seconds since the line before."""
    started = time.monotonic()
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as program:
        for line in program.stdout:
            now = time.monotonic()
            text = line.rstrip("\n")
            for start in range(0, max(len(text), 1), COLUMNS):
                lines.append((text[start : start + COLUMNS], now - started))
                started = now
    if program.returncode != 0:
        sys.exit(f"recording: {command[0]} exited with {program.returncode}")
    return lines


def draw(lines, title):
    gaps = [min(max(gap, SHORTEST), LONGEST) for _, gap in lines]
    scale = min(1, (SECONDS - PAUSE) / sum(gaps))
    total = sum(gaps) * scale + PAUSE
    width, height = 2 * MARGIN + COLUMNS * WIDTH, 2 * MARGIN + ROWS * HEIGHT
    elapsed, steps, rows = 0.0, [], []
    for number, ((text, _), gap) in enumerate(zip(lines, gaps)):
        steps.append(f"{100 * elapsed / total:.2f}%{{transform:translateY({(ROWS - number) * HEIGHT}px)}}")
        elapsed += gap * scale
        rows.append(f'<tspan x="{MARGIN}" y="{number * HEIGHT + 13}">{escape(text)}</tspan>')
    end = f"transform:translateY({(ROWS - len(lines)) * HEIGHT}px)"
    steps.append(f"{100 * elapsed / total:.2f}%,100%{{{end}}}")
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img">
<title>{escape(title)}</title>
<style>@keyframes up{{{"".join(steps)}}}
text{{font:12px ui-monospace,monospace;fill:#d6dce5;white-space:pre;{end};animation:up {total:.1f}s step-end infinite}}</style>
<rect width="100%" height="100%" rx="6" fill="#14181f"/>
<svg y="{MARGIN}" width="100%" height="{ROWS * HEIGHT}"><text>
{chr(10).join(rows)}
</text></svg>
</svg>
"""


def main():
    file, *command = sys.argv[1:]
    lines = [("$ make demo", 0.0), *record(command)]
    pathlib.Path(file).write_text(draw(lines, "What make demo prints"), encoding="utf-8")


main()
