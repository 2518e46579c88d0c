"""examples/layout_moco: names of weights from another package, found out, read and written."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from plugins.installed import Installed

# A checkpoint as MoCo writes it: torchvision's network twice, with 128 outputs, and the queue.
CHECKPOINT = """
import torch, torchvision
torch.manual_seed(0)
query, key = (torchvision.models.resnet18(num_classes=128).state_dict() for _ in range(2))
tensors = {f"module.encoder_q.{name}": tensor for name, tensor in query.items()}
tensors |= {f"module.encoder_k.{name}": tensor for name, tensor in key.items()}
tensors |= {"module.queue": torch.zeros(128, 64), "module.queue_ptr": torch.zeros(1, dtype=torch.long)}
torch.save({"epoch": 200, "arch": "resnet18", "state_dict": tensors}, "moco.pth.tar")
"""


@pytest.fixture(scope="module")
def moco(install: Callable[[str], Installed]) -> Installed:
    place = install("layout_moco")
    place.python(CHECKPOINT)
    return place


def test_there_and_back(moco: Installed) -> None:
    moco.python(
        """
import torch, torchvision
from resurge import create_model, export_weights, load_weights

tensors = torch.load("moco.pth.tar", weights_only=True)["state_dict"]
model = create_model("resnet18", num_classes=10).eval()
report = load_weights(model, "moco.pth.tar")
assert report.layout == "moco" and set(report.mismatched) == {"head.fc.weight", "head.fc.bias"}, report
assert not report.missing
reference = torchvision.models.resnet18(num_classes=128).eval()
reference.load_state_dict({k.removeprefix("module.encoder_q."): v for k, v in tensors.items() if "encoder_q" in k})
x = torch.rand(1, 3, 64, 64)
features = torch.nn.Sequential(*list(reference.children())[:-2])(x)
assert (features - features.mean()).abs().max() > 0.1  # alive
assert torch.allclose(model.backbone(x)[-1], features, atol=1e-5)
written = export_weights(model, layout="moco")
assert all(torch.equal(tensor, tensors["module." + name]) for name, tensor in written.items() if ".fc." not in name)
"""
    )


def test_on_the_command_line(moco: Installed) -> None:
    trained, wrong = moco.resurge(
        "train --data digits --model resnet18 --weights moco.pth.tar --set size=32 --epochs 1 --steps 2 --workers 0"
        " --device cpu --set warmup=0 --out run",
        "convert moco.pth.tar other.safetensors --model resnet18 --to moko",
    )
    assert trained.code == 0, trained.err
    assert wrong.code == 2
    assert "Did you mean 'moco'?" in wrong.err
