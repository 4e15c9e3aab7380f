"""`python -m eva_command`, also for launchers: `torchrun -m eva_command detection train ...`."""

import sys

from eva_command.main import main

if __name__ == "__main__":
    sys.exit(main())
