"""What rules a file out by its bytes alone; most files of most repositories end here.

Nothing is imported: `entry.py` asks before the rules and the command line are loaded.
"""


def mentions_opt_out(data: bytes) -> bool:
    """Tell whether a file may hold an opt-out comment."""
    return b"quickwins:" in data and b"skip" in data


def needles_of(source: bytes) -> tuple[bytes, ...] | None:
    """Return the NEEDLES of a rule's module, read from its source; none for a module without.

    None where they are no plain tuple of byte strings on lines of its own. Importing the module
    instead would cost more than the start of Python.
    """
    lines = source.split(b"\n")
    if not any(line.startswith(b"RULE = ") for line in lines):
        return ()
    first = next((n for n, line in enumerate(lines) if line.startswith(b"NEEDLES = (")), None)
    if first is None:
        return None
    for last in range(first, len(lines)):
        if lines[last].rstrip().endswith(b")"):
            written = b"\n".join(lines[first : last + 1]).removeprefix(b"NEEDLES = ")
            try:
                found = eval(written, {"__builtins__": {}})  # ours, as an import would run it
            except Exception:
                continue  # not its end yet
            return found if type(found) is tuple and {*map(type, found)} == {bytes} else None
    return None
