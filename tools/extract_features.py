"""Write features of pictures or texts to files: `python tools/extract_features.py --help`."""

from eva_command.joint import extract as main

if __name__ == "__main__":
    main()
