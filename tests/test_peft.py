"""What every method of conf/peft promises, on every tiny model: a new yaml is tested too."""

import copy
from contextlib import suppress
from dataclasses import fields
from enum import Enum
from fnmatch import fnmatchcase
from functools import cache
from importlib import import_module
from itertools import cycle
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from segsweep.base.errors import Unfit, UserError
from segsweep.base.words import content_of
from segsweep.data.base import BACKGROUND, Subject
from segsweep.data.loader import Target
from segsweep.model.backbones import has_blocks
from segsweep.model.family import BackboneConfig
from segsweep.peft.apply import apply, merge
from segsweep.peft.delta import base_hash, delta_bytes, delta_state_dict, load_delta, trained
from segsweep.peft.sites import canonical, named_weights
from tests.words import class_of, compose, files

CLASSES, SIDE, STEPS = ["crate", "bottle", "bag"], 64, 4
WORDS = list(files("peft"))
MODELS = [word for word in files("model") if word.endswith("_tiny")]
SIZES = {"points": 64, "queries": 20, "dn_number": 6}  # small ones, of a family that has them
SMALL = SIZES | {"encoder_layers": 1, "decoder_layers": 2}


def config_of(variant, model="maskdino_tiny"):
    word, *rest = variant
    family: Any = class_of("model", model)
    data = "digits" if "instances" in family.tasks else "digits_semantic"
    known = {f.name for f in fields(family)}
    small = [f"model.{key}={value}" for key, value in SMALL.items() if key in known]
    return compose([f"model={model}", f"peft={word}", f"data={data}", *small, *rest])


@cache
def method_of(word):
    """A method as its file has it; that it composes with a model is seen in each case."""
    kind = OmegaConf.structured(class_of("peft", word))
    return OmegaConf.to_object(OmegaConf.merge(kind, content_of("peft", word)))


def built(config):
    """The base model of a config, for instances where it finds some, else for label maps."""
    return config.model.build(Subject(CLASSES, config.model.tasks[0]))


def combinations(word):
    """A method with each value of each option; not of what tells no result from another."""
    method = method_of(word)
    options = {
        f.name: getattr(method, f.name) for f in fields(method) if not f.metadata.get("outside")
    }
    values = {k: [w.name for w in type(v)] for k, v in options.items() if isinstance(v, Enum)}
    values |= {k: ["true", "false"] for k, v in options.items() if isinstance(v, bool)}
    default = {k: str(v.name if isinstance(v, Enum) else v).lower() for k, v in options.items()}
    yield [word]
    for key, value in ((k, v) for k in values for v in values[k]):
        if value.lower() != default[key]:
            yield [word, f"peft.{key}={value}"]


def doubled(word):
    """A method with all its whole numbers doubled, if it has some; it may refuse that size."""
    options = vars(method_of(word))
    sizes = [f"peft.{key}={2 * value}" for key, value in options.items() if type(value) is int]
    return [[word, *sizes]] if sizes else []


FIRST = {class_of("peft", word): word for word in reversed(WORDS)}  # of each class; the others
OTHERS = [[word] for word in WORDS if word not in FIRST.values()]  # as their yaml has them
OTHERS += [variant for word in FIRST.values() for variant in [*combinations(word)][1:]]
DOUBLED = [variant for word in FIRST.values() for variant in doubled(word)]
WITHOUT_BLOCKS = [
    m for m in MODELS if not has_blocks(config_of(["frozen"], m).model.backbone.layout)
]


def homes(variant, turn=0):
    """The models in which a method may live, another one first at each turn."""
    models = MODELS[turn % len(MODELS) :] + MODELS[: turn % len(MODELS)]
    lodges = class_of("peft", variant[0]).in_blocks
    return [model for model in models if not (lodges and model in WITHOUT_BLOCKS)]


# Every class on every model; its other words, options and sizes on one that takes them, in turn
CASES = [([model], [word]) for model in MODELS for word in FIRST.values() if model in homes([word])]
CASES += [(homes(variant, turn), variant) for turn, variant in enumerate([*OTHERS, *DOUBLED])]


@cache
def base_of(model_word):
    torch.manual_seed(0)
    model = built(config_of(["frozen"], model_word))
    for name, weight in model.named_parameters():
        if name.endswith("weight") and not weight.any():  # a branch that starts shut, as in timm
            torch.nn.init.uniform_(weight, -0.1, 0.1)
    return model.eval().requires_grad_(False)  # frozen parts may be computed in another order


@pytest.fixture(scope="module", params=MODELS)
def model_word(request):
    return request.param


def fits(variant, model):
    """Say whether a method may live in a model."""
    with suppress(Unfit):
        return bool(config_of(variant, model))
    return False


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0][0]}-{' '.join(case[1])}")
def whole(request):
    """The config of a case, with a model as the method left it; tests change neither."""
    models, variant = request.param
    for model in models:
        try:
            config = config_of(variant, model)
            return config, *applied(base_of(model), config)
        except UserError as error:
            if variant not in DOUBLED and not isinstance(error, Unfit):
                raise
            refusal = str(error)
    elsewhere = len(models) == 1 and any(fits(variant, model) for model in MODELS)
    varied = variant in DOUBLED or len(variant) > 1  # some options want others beside them
    assert varied or elsewhere, f"{variant} lives in no model: {refusal}"
    pytest.skip(refusal)


@pytest.fixture(scope="module")
def config(whole):
    return whole[0]


@pytest.fixture(scope="module")
def moved(config):
    """What training could make of it, with its outputs and its delta from before merging."""
    model = move(applied(base_of(config.model.name), config)[0])
    return model, outputs(model, photos()), delta_bytes(model, {"base": config.model.name})


@pytest.fixture
def base(config):
    return base_of(config.model.name)


def photos():
    return torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def images():
    return photos()


@pytest.fixture
def targets():
    masks = torch.zeros(2, SIDE, SIDE, dtype=torch.bool)
    masks[0, 8:40, 8:24], masks[1, 30:60, 20:56] = True, True
    boxes = torch.tensor([[16, 24, 16, 32], [38, 45, 36, 30]]) / SIDE
    maps = torch.full((2, SIDE, SIDE), BACKGROUND, dtype=torch.uint8)
    maps[0][masks[0]], maps[0][masks[1]], maps[1][masks[1]] = 0, 2, 1
    return [
        Target(torch.tensor([0, 2]), boxes, masks, label_map=maps[0]),
        Target(torch.tensor([1]), boxes[1:], masks[1:], label_map=maps[1]),
    ]


def applied(base, config):
    torch.manual_seed(2)
    model = copy.deepcopy(base)
    return model, apply(model, config.peft, config.model.roles)


@torch.no_grad()
def outputs(model, images):
    named = model.sem_seg_head.tensors(model.eval()(images))
    return torch.cat([tensor.flatten() for tensor in named.values()])


@cache
def outputs_of_base(model_word):
    """Of one image: several may be computed in another order where the backbone trains."""
    return outputs(base_of(model_word), photos()[:1])


def move(model):
    """Give every trained tensor a value that training could have given it."""
    torch.manual_seed(3)
    for tensor in delta_state_dict(model).values():
        tensor.add_(torch.randn_like(tensor), alpha=0.05)
    return model


def train(model, images, targets, sparse=False):
    """Take a few optimizer steps; return the names that had a gradient other than zero."""
    torch.manual_seed(4)
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-3)
    moved = set()
    model.train()
    for _ in range(STEPS):
        optimizer.zero_grad()
        model.loss(model(images, targets), targets)["loss"].backward()
        grads = {name: p.grad for name, p in trained.items() if p.grad is not None}
        assert sparse or grads.keys() == trained.keys()
        moved |= {name for name, grad in grads.items() if grad.ne(0).any()}
        optimizer.step()
    return moved


def test_training_starts_where_the_method_says(whole, images):
    config, model, _ = whole
    change = (outputs(model, images[:1]) - outputs_of_base(config.model.name)).abs().max()
    rounded = 1e-5 if config.peft.counted_by else 1e-6  # the library may take a weight apart
    assert (change < rounded) == config.peft.identity


def buffers(model, base):
    """Buffers that the method added."""
    names = model.state_dict().keys() - base.state_dict().keys()
    return {canonical(model, name) for name, _ in model.named_buffers() if name in names}


def test_a_loss_of_its_own_is_declared(base, config, images, targets):
    model, counts = applied(base, config)
    output = model.train()(images, targets)
    left = any(vars(module).get("auxiliary") for module in model.modules())
    assert left == config.peft.has_auxiliary_loss
    terms = model.loss(output, targets)
    assert terms["loss"].requires_grad == bool(counts.trainable)


def test_where_no_blocks_are_none_can_be_lived_in():
    lodgers = [word for word in WORDS if class_of("peft", word).in_blocks]
    assert len(lodgers) >= len(WITHOUT_BLOCKS) > 0  # each model refuses some
    for word, model in zip(lodgers, cycle(WITHOUT_BLOCKS), strict=False):
        with pytest.raises(Unfit, match=f"peft={word} lives in the blocks of a transformer, "):
            config_of([word], model)


@pytest.mark.parametrize("word", WORDS)
def test_tasks_and_tensors_of_other_tools_are_declared(word):
    method = method_of(word)
    for task in method.tasks or ():
        assert import_module(f"segsweep.task.{task}").TASK
    assert method.hf_lora() is None or method.hf_lora().keys() == {"r", "lora_alpha"}


def test_only_what_is_declared_trains_and_the_count_is_the_formulas(base, whole):
    config, model, counts = whole
    patterns = [p for role in config.peft.train for p in config.model.roles[role]]
    names = {}
    for name, parameter in base.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), (parameter, []))[1].append(name)
    chosen = [
        (known[0], parameter.numel())
        for parameter, known in names.values()
        if any(fnmatchcase(name, pattern) for name in known for pattern in patterns)
    ]
    added = set(delta_state_dict(model)) - {name for name, _ in chosen}
    assert set(delta_state_dict(model)) >= {name for name, _ in chosen}
    sites = named_weights(model)
    assert added == {n for n, p in trained(model) if sites[n].added} | buffers(model, base)
    assert counts.trainable == counts.added + sum(size for _, size in chosen)
    assert counts.total == counts.added + sum(p.numel() for p in base.parameters())


def test_every_trained_tensor_learns_and_no_frozen_bit_moves(base, config, images, targets):
    model, counts = applied(base, config)
    before, base_before = copy.deepcopy(model.state_dict()), base_hash(model)
    if counts.trainable:
        moved = train(model, images, targets, sparse := config.peft.sparse)
        names = {n for n, p in model.named_parameters() if p.requires_grad}
        assert moved <= names if sparse else moved == names
    frozen = [n for n, p in model.named_parameters() if not p.requires_grad]
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in frozen)
    assert base_hash(model) == base_before


def test_a_saved_delta_is_the_trained_model(base, config, moved, images, tmp_path):
    _, trained_outputs, delta = moved
    (tmp_path / "delta.safetensors").write_bytes(delta)
    again, _ = applied(base, config)
    load_delta(tmp_path / "delta.safetensors", again)
    assert torch.equal(outputs(again, images), trained_outputs)


def test_merging_keeps_the_outputs_and_the_names_of_the_base(base, config, moved, images):
    model, before, _ = moved  # which no other test looks at
    staying = merge(model)
    torch.testing.assert_close(outputs(model, images), before, atol=1e-5, rtol=1e-5)
    extra = model.state_dict().keys() ^ base.state_dict().keys()
    assert all(any(name.startswith(seam) for seam in staying) for name in extra)
    assert bool(staying) == (not config.peft.mergeable)


def test_the_delta_of_a_small_lora_is_hardly_larger_than_its_tensors(model_word, tmp_path):
    model, counts = applied(base_of(model_word), config_of(["lora", "peft.rank=2"], model_word))
    (tmp_path / "delta.safetensors").write_bytes(delta_bytes(model, {"base": model_word}))
    size = (tmp_path / "delta.safetensors").stat().st_size
    assert size < 1.05 * 4 * counts.trainable + 16 * 1024


def test_weights_inside_the_backbone_can_be_edited(images, targets):
    where = "peft.targets=['backbone.*.attn.qkv.weight']"
    config = config_of(["lora", where, "peft.train=[]"])
    stages = {"embed_dim": 24, "depths": [1] * 4, "num_heads": [1] * 4, "window_size": 4}
    name = "swin_tiny_patch4_window7_224"
    config.model.backbone = BackboneConfig(name, "swin", stages)
    model = config.model.build(Subject(CLASSES))
    counts = apply(model, config.peft, config.model.roles)
    assert counts.trainable == sum(4 * config.peft.rank * 24 * 2**stage for stage in range(4))
    moved = train(model, images, targets)
    assert moved == {n for n, p in model.named_parameters() if p.requires_grad}


def test_a_delta_refuses_another_base(model_word, tmp_path):
    config = config_of(["lora"], model_word)
    (tmp_path / "delta.safetensors").write_bytes(
        delta_bytes(applied(base_of(model_word), config)[0], {})
    )
    torch.manual_seed(5)
    other, _ = applied(built(config), config)
    with pytest.raises(
        UserError, match=f"was trained on the base .*, this one is {base_hash(other)}"
    ):
        load_delta(tmp_path / "delta.safetensors", other)


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        (["lora", "peft.rank=0"], "peft.rank=0: the rank must be at least 1"),
        (["adapter", "peft.reduction=3"], "peft.reduction=3 does not divide the width 64"),
        (["lora", "peft.targets=[attn]"], "'attn' is no role of this model; choose from head, "),
        (
            ["lora", "peft.targets=['*.self_attn.in_proj.weight']"],
            r"matches none of the \d+ weights .* did you mean '.*\.self_attn\.\w+.*weight'",
        ),
    ],
)
def test_what_cannot_be_is_said(model_word, variant, message):
    with pytest.raises(UserError, match=message):
        applied(base_of(model_word), config_of(variant, model_word))


def test_alpha_follows_the_rank_unless_given():
    assert config_of(["lora", "peft.rank=4"]).peft.scale == 1.0
    assert config_of(["lora", "peft.rank=4", "peft.alpha=8"]).peft.scale == 2.0


def test_learning_rates_are_those_of_the_paper():
    rates = {"lora": 1e-3, "adapter": 1e-3, "full_head": 1e-4}
    rates |= {"decoder_only": 1e-4, "embeddings_only": 1e-4}
    assert {word: config_of([word]).hparams.lr for word in rates} == rates
