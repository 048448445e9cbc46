"""`python -m kubesae.train`: the same as `kubesae train`, as a module that torchrun can start.

torchrun --nproc_per_node=2 -m kubesae.train experiment.yaml
"""

import sys

from kubesae.cli.main import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
