"""Words that choose weights of the base: what they start from, and at which rate they train."""

import pytest

from segsweep.base.config import compose
from segsweep.base.errors import Unfit, UserError
from segsweep.sweeps.sweeper import configs


def test_from_scratch_leaves_the_base_out_and_other_jobs_of_the_sweep_keep_it():
    swept = configs(["-m", "peft=lora,from_scratch", "model=maskdino_tiny,seem_tiny"])
    for _, config in swept:
        given = config.model.weights is not None
        assert given == (config.peft.name == "lora")
        assert config.hparams.backbone_lr == (0.1 if given else 1.0)
    assert compose(["peft=from_scratch", "hparams.backbone_lr=0.5"]).hparams.backbone_lr == 0.5


@pytest.mark.parametrize("key", ["model.weights=base.pth", "model.backbone.pretrained=True"])
def test_from_scratch_refuses_weights_that_are_given(key):
    for words in ([key, "peft=from_scratch"], ["peft=from_scratch", key]):
        with pytest.raises(UserError, match=f"{key}: peft=from_scratch .* choose peft=full_ft"):
            compose(words)
    assert compose(["peft=from_scratch", "model.weights=null"]).model.weights is None


@pytest.mark.parametrize("word", ["full_head", "bitfit", "ln_tuning", "from_scratch"])
def test_a_scope_is_for_what_is_added(word):
    with pytest.raises(Unfit, match=rf"peft\.scope=decoder: peft={word} adds nothing"):
        compose([f"peft={word}", "peft.scope=decoder"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["peft.scope=middle"], r"peft\.scope=middle: .* choose from encoder, decoder, head, or"),
        (["peft.scope=last:0"], r"peft\.scope=last:0: "),
        (["peft.scope=neck"], r"peft\.scope=neck: model=maskdino_tiny has no such part"),
        (["peft.scope=backbone"], r"peft\.scope=backbone: .* choose from encoder, decoder, head"),
        (["model=sam_tiny", "data=digits_binary", "peft.scope=head"], "choose from backbone, or"),
    ],
)
def test_a_scope_names_a_part_of_the_model(words, said):
    with pytest.raises(UserError, match=said):
        compose(["peft=lora", *words])
