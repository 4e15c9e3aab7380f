"""Score frozen features: `python classification/evaluate_frozen.py --help`."""

from eva_classification.frozen_command import main

if __name__ == "__main__":
    main()
