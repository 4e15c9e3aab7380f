"""Write features of pictures to files: `python tools/extract_features.py --help`."""

from eva_classification.extract_command import main

if __name__ == "__main__":
    main()
