"""One of two DDP processes. Arguments: rank, and a file that both use to find each other."""

import sys

import torch
import torch.distributed as dist

from tests.train.test_loss import flat_then_attached

rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
ddp = torch.nn.parallel.DistributedDataParallel
(late, late_answer), (early, early_answer) = flat_then_attached(ddp, rank=rank, world=2)
assert late == early, (late, early)
assert torch.equal(late_answer, early_answer)
mean = torch.tensor(late, dtype=torch.float64)
dist.all_reduce(mean)
print("losses", (mean / 2).tolist())
dist.destroy_process_group()
