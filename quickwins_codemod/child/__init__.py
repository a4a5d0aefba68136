"""What runs inside the user's own Python, around a script: standard library, and torch if it is there.

These files are started by path (`python launcher.py …`), since that Python may not have quickwins.
Nothing here imports another room, and no other room imports this one.
"""
