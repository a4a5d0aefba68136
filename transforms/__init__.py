"""The quick wins, one module each; imported as quickwins_codemod.transforms."""
