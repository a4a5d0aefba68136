"""What runs in the user's own Python, around a script: the standard library, and torch if there.

These files are started by path (`python launcher.py …`): that Python may not have quickwins.
Nothing here imports another room, and no other room imports this one.
"""
