"""Backbones: pictures to maps at strides 4 to 32."""
