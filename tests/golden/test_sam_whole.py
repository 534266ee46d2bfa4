"""SAM as it was published: encoder, prompts, decoder and names agree with its programs."""

from __future__ import annotations

from zlib import crc32

import numpy as np
import pytest
import torch
from recorded import FOLDER
from sam_models import Heads, gradients
from torch import Tensor

from segsweep.base.config import compose
from segsweep.data.base import DataSet, Record, Subject, Transform
from segsweep.data.geometry import evaluation_geometry
from segsweep.data.loader import collate
from segsweep.data.transforms import sample
from segsweep.model.heads.frames import to_original
from segsweep.model.sam import SAM, NormEps
from segsweep.model.sam_names import from_official, official, ours, segment_anything

pytestmark = pytest.mark.golden
TINY, FULL = "sam_tiny", "sam_full_b"
PROMPTS = {
    "points": ("points", "labels"),
    "boxes": ("boxes",),
    "points_boxes_mask": ("points", "labels", "boxes", "masks"),
}
NAMED = {"points": "points", "labels": "point_labels", "boxes": "boxes", "masks": "mask_prompt"}


@pytest.fixture(scope="module")
def heads() -> Heads:
    return Heads(FOLDER / "heads")


@pytest.fixture(scope="module")
def seen(heads):
    """The whole model, its recorded input, and the image embeddings of both pictures."""
    model, images = heads.whole(), heads.arrays(TINY)["pre/input"]
    with torch.no_grad():
        return model, images, model.backbone(images)[0]


@torch.no_grad()
def test_encoder(heads, seen):
    model, images, embedding = seen
    heads.check(TINY, "enc/image_embeddings", embedding)
    outputs = []
    for i in (0, heads.config(TINY)["depth"] - 1):
        model.backbone.blocks[i].register_forward_hook(lambda m, x, y: outputs.append(y))
    model.backbone(images[:1])
    for i, x in zip((0, heads.config(TINY)["depth"] - 1), outputs, strict=True):
        wanted = f"enc/block{i}_out_img0"
        heads.check(TINY, wanted, x.view(heads.arrays(TINY)[wanted].shape))


@torch.no_grad()
def test_decoder_without_prompts(heads, seen):
    model, images, embedding = seen
    masks, quality = model(images)
    head, grid = model.sem_seg_head, embedding.shape[2:]
    tokens, dense = head.prompt_encoder.none()
    assert tokens.shape[1] == 0
    heads.check(TINY, "prompt/none_dense", dense.expand(1, -1, *grid))
    places = head.prompt_encoder.pe_layer.grid(*grid)
    heads.check(TINY, "prompt/dense_pe", places)
    for i in (0, 1):
        heads.check(TINY, f"dec/img{i}_masks_all4", masks[i : i + 1])
        heads.check(TINY, f"dec/img{i}_iou_all4", quality[i : i + 1])
        sizes = heads.arrays(TINY)["pre/input_sizes"][i].tolist(), images.shape[2:]
        original = heads.arrays(TINY)[f"in/image{i}_uint8_hwc"].shape[:2]
        full = to_original(masks[i : i + 1, 1:2], *sizes, original, "bilinear")
        heads.check(TINY, f"post/img{i}_mask1", full[0])
    decoded = head.mask_decoder(embedding, places, tokens, dense)
    for i in (0, 1):
        heads.check(TINY, f"dec/img{i}_hs", decoded.tokens[i : i + 1])
    image = (embedding[:1] + dense).flatten(2).transpose(1, 2)
    own = torch.cat([head.mask_decoder.iou_token.weight, head.mask_decoder.mask_tokens.weight])
    _, image = head.mask_decoder.transformer(own[None], image, places.flatten(2).transpose(1, 2))
    heads.check(TINY, "dec/img0_src", image)


@torch.no_grad()
@pytest.mark.parametrize("kind", PROMPTS)
def test_prompts(heads, seen, kind):
    model, images, embedding = seen
    arrays, size = heads.arrays(TINY), tuple(images.shape[2:])
    prompts = {name: arrays[f"in/{NAMED[name]}"] for name in PROMPTS[kind]}
    sparse, dense = model.sem_seg_head.prompt_encoder(size, **prompts)
    heads.check(TINY, f"prompt/{kind}_sparse", sparse)
    if f"prompt/{kind}_dense" in arrays:
        heads.check(TINY, f"prompt/{kind}_dense", dense)
    of_first = embedding[:1].expand(len(sparse), -1, -1, -1)  # all prompts are of one picture
    masks, quality = model.decode(of_first, size, **prompts)
    heads.check(TINY, f"dec/{kind}_masks", masks[:, 1:])
    heads.check(TINY, f"dec/{kind}_iou", quality[:, 1:])


def test_gradients(heads):
    model, arrays = heads.whole(), heads.arrays(TINY)
    masks, _ = model(arrays["pre/input"])
    (masks * arrays["grad_in/mask_cotangent"]).sum().backward()
    found = gradients(model)
    for key in (key for key in arrays if key.startswith("grad/")):
        heads.check(TINY, key, found[ours(key.removeprefix("grad/"))])
    norms = heads.manifest[TINY]["grad_norms"]
    assert norms
    for name, norm in norms.items():
        gradient = found.get(ours(name), torch.zeros(1))  # none of what no prompt asks for
        assert float(gradient.norm()) == pytest.approx(norm, rel=2e-3, abs=1e-3), name


@pytest.mark.parametrize("size", ["vit_b", "vit_l", "vit_h"])
def test_names(heads, size):
    """Of three systems become ours and go back; none is lost, none is invented."""
    table, word = heads.json("sam_names")[size], size.replace("vit", "sam")
    family = compose([f"model={word}", "data=kvasir"]).model
    with torch.device("meta"):
        entries = {name: list(t.shape) for name, t in family.whole().state_dict().items()}
    assert entries == {ours(name): shape for name, shape, *_ in table["rows"]}
    for name, _, _, hugging_face, timm in table["rows"]:
        assert official(ours(name)) == name
        assert {segment_anything(other) for other in hugging_face} == {name}
        assert ours(name) == (f"backbone.{timm}" if timm else f"sem_seg_head.{name}")


def test_a_file_of_transformers_is_recognised(heads):
    table = heads.json("sam_names")["vit_b"]["rows"]
    both = [from_official({n: 0 for row in table for n in row[k]}) for k in (3,)]
    assert both[0].keys() == from_official({row[0]: 0 for row in table}).keys()


def test_counts(heads):
    """Of the whole model, and of what trains in the reduced one."""
    for size, table in heads.json("sam_names").items():
        family = compose([f"model={size.replace('vit', 'sam')}", "data=kvasir"]).model
        wanted = table["params"]
        with torch.device("meta"):
            whole = family.whole()
            reduced = family.build(Subject(("polyp",), "semantic"))
        head = whole.sem_seg_head
        parts = {"total": whole, "image_encoder": whole.backbone, "neck": whole.backbone.neck}
        parts |= {"prompt_encoder": head.prompt_encoder, "mask_decoder": head.mask_decoder}
        decoder = head.mask_decoder
        parts |= {"iou_head": decoder.iou_prediction_head, "transformer": decoder.transformer}
        parts |= {"one_hyper_mlp": decoder.output_hypernetworks_mlps[0]}
        parts |= {"upscaling": decoder.output_upscaling}
        counts = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
        left = reduced.sem_seg_head.mask_decoder
        counts["mask_decoder_reduced_trainable"] = (
            sum(p.numel() for p in left.parameters()) - counts["iou_head"]
        )
        assert counts == wanted


def recipe(state: dict[str, Tensor], salt: str) -> dict[str, Tensor]:
    """Weights for every name of segment_anything, drawn by their names."""
    drawn = {}
    for name, tensor in state.items():
        random = np.random.RandomState(crc32(f"{salt}:{name}".encode()) & 0x7FFFFFFF)
        z, shape = random.standard_normal(tensor.shape).astype(np.float32), tensor.shape
        embedded = ("pos_embed", "_embed.weight", "tokens.weight", "token.weight")
        if "gaussian_matrix" in name:
            value = z
        elif "rel_pos" in name:
            value = np.float32(0.1) * z
        elif name.endswith(embedded) or "point_embeddings" in name:
            value = np.float32(0.5) * z
        elif len(shape) >= 2:
            value = z / np.sqrt(np.prod(shape[1:])).astype(np.float32)
        else:
            value = 1 + np.float32(0.1) * z if name.endswith(".weight") else np.float32(0.05) * z
        drawn[name] = torch.from_numpy(np.asarray(value, np.float32))
    return drawn


@torch.no_grad()
@pytest.mark.slow
def test_full_size(heads):
    family = compose(["model=sam_b", "data=kvasir"]).model
    assert isinstance(family, SAM)
    family.norm_eps = NormEps["official"]
    whole, arrays = family.whole().eval(), heads.arrays(FULL)
    state = recipe(whole.official(), heads.config(FULL)["salt"])
    whole.load_state_dict(from_official(state))
    mean, std = (torch.tensor(getattr(DataSet(), part)).view(3, 1, 1) for part in ("mean", "std"))
    pixels = arrays["in/small_uint8_hwc"].repeat_interleave(16, 0).repeat_interleave(16, 1)
    images = torch.zeros(1, 3, 1024, 1024)
    images[0, :, : pixels.shape[0]] = (pixels.permute(2, 0, 1).float() - mean) / std
    (embedding,) = whole.backbone(images)
    heads.check(FULL, "enc/embeddings_sub", embedding[:, ::4, ::4, ::4])
    heads.check(FULL, "enc/mean_std", torch.stack([embedding.mean(), embedding.std()]))
    places = whole.sem_seg_head.prompt_encoder.pe_layer.grid(*embedding.shape[2:])
    parts = zip(places.shape, arrays["prompt/dense_pe_sub"].shape, strict=True)
    channels, rows, columns = (-(-side // part) for side, part in [*parts][1:])
    heads.check(FULL, "prompt/dense_pe_sub", places[:, ::channels, ::rows, ::columns])
    masks, quality = whole.decode(embedding, (1024, 1024))
    heads.check(FULL, "dec/iou_all4", quality)
    heads.check(FULL, "dec/masks_all4_sub8", masks[:, :, ::8, ::8])
    reduced = family.build(Subject(("one",), "semantic")).eval()
    fitted = family.fitted(from_official(state), reduced)
    reduced.load_state_dict({n: t for n, t in fitted.items() if n in reduced.state_dict()})
    logits = reduced.sem_seg_head([embedding]).logits
    heads.check(FULL, "dec/reduced_mask_sub8", logits[:, :, ::8, ::8])


def test_pixels(heads):
    """The longest side fits, the rest is padded: what segment_anything does with a picture."""
    arrays, side = heads.arrays(TINY), heads.config(TINY)["img"]
    data = DataSet(size=[side, side], transform=Transform["lsj"])
    samples = []
    for i in (0, 1):
        pixels = arrays[f"in/image{i}_uint8_hwc"].numpy()
        record = Record(i, "", pixels.shape[0], pixels.shape[1], [])
        samples.append(sample(pixels, record, evaluation_geometry(data, record)))
        resized = samples[-1].image.permute(1, 2, 0).int()
        off = (resized - arrays[f"pre/resized{i}_uint8_hwc"].int()).abs()
        assert off.max() <= 2  # Pillow rounds between both directions
        assert off.bool().double().mean() < 0.1
    batch = collate(samples, data)
    heads.check(TINY, "pre/input_sizes", torch.tensor(batch.sizes))
    off = (batch.images - arrays["pre/input"]).abs() * torch.tensor(data.std).view(3, 1, 1)
    assert off.max() < 2.01
