"""The Triton kernel of deformable attention: interpreted on a CPU, compiled on a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_model_deformable import SHAPES, case

from segsweep.model.layers import deformable


def test_interpreted_kernel_does_what_the_plain_function_does():
    pytest.importorskip("triton")
    program = Path(__file__).with_name("interpreted_kernel.py")
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, str(program)], check=True, env=environment, timeout=600)


def test_a_cpu_takes_the_plain_function_whatever_is_wanted(monkeypatch):
    monkeypatch.setenv("SEGSWEEP_TRITON", "1")
    deformable._kernel.cache_clear()
    value, *rest = case(0, spread=1.0)
    deformable.read(value, SHAPES, *rest)
    assert deformable._kernel.cache_info().misses == 0


@pytest.mark.cuda
def test_compiled_kernel_has_exact_gradients():
    from segsweep.model.layers import deformable_triton

    inputs = case(2, spread=2.0, batch=1, heads=1, dim=2)
    leaves = [tensor.detach().cuda().requires_grad_() for tensor in inputs]
    assert torch.autograd.gradcheck(
        lambda value, *rest: deformable_triton.read(value, SHAPES, *rest), leaves, nondet_tol=1e-9
    )
