from quickwins_codemod.cli import main

if __name__ == "__main__":
    main()
