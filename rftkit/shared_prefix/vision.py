"""Vision features, computed once per picture and kept."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from weakref import WeakKeyDictionary

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

CACHE_BYTES = 256 * 2**20  # of features kept; the oldest go first
PIECE = 4096  # tokens or patches at once on a CPU: a small model's activations of more do not fit the CPU's cache


class VisionFeatures:
    """What the vision tower of a Qwen-VL makes of pictures.

    Of a picture that is a tensor [1 + D, tokens, width]: what stands in the prompt for the picture, and (Qwen3-VL) the
    deepstack features that are added behind the first D layers of the language model.

    While the tower's weights are the same a picture's features never change: sampling and update share them, a
    few-shot set is looked at once, test pictures once for all modes and all runs of a notebook. Pictures and weights
    are told apart by their digests. A tower that is being trained runs each time.
    """

    def __init__(self, cache_bytes: int = CACHE_BYTES) -> None:
        self.cache_bytes, self.held = cache_bytes, 0
        self.kept: OrderedDict[bytes, torch.Tensor] = OrderedDict()
        self.towers: WeakKeyDictionary[torch.nn.Module, tuple[int, str]] = WeakKeyDictionary()

    def __call__(self, model, pixels: torch.Tensor, grid: torch.Tensor) -> dict:
        """`as_features` of `pixel_values` [patches, values] of pictures [N, 3]."""
        tower = model.model.visual
        if any(parameter.requires_grad for parameter in tower.parameters()):
            self.towers.pop(tower, None)  # a fused optimizer changes weights and leaves their `_version`
            return as_features(self._run(model, pixels, grid))
        # Not by autocast, under which the update runs and sampling does not: both see the same features.
        with torch.no_grad(), torch.autocast(pixels.device.type, enabled=False):
            return as_features(self._lookup(model, pixels, grid))

    def _lookup(self, model, pixels: torch.Tensor, grid: torch.Tensor) -> list[torch.Tensor]:
        setting = f"{pixels.dtype} {pixels.device} {self._weights(model.model.visual)}"
        pictures = torch.split(pixels, grid.prod(-1).tolist())
        keys = [_digest(picture, shape, setting) for picture, shape in zip(pictures, grid, strict=True)]
        fresh = {key: place for place, key in enumerate(keys) if key not in self.kept}
        found = dict(zip(fresh, self._run(model, *_select(pictures, grid, fresh)), strict=True)) if fresh else {}
        features = [found[key] if key in found else self.kept[key] for key in keys]
        for key in dict.fromkeys(keys):
            if key in found:
                self.kept[key] = found[key].clone()  # not a view of the whole batch
                self.held += found[key].nbytes
            self.kept.move_to_end(key)
        while self.held > self.cache_bytes:
            self.held -= self.kept.popitem(last=False)[1].nbytes
        return features

    def _weights(self, tower: torch.nn.Module) -> str:
        """A digest of a tower's weights, taken anew when they have changed."""
        version = sum(parameter._version for parameter in tower.parameters())
        if self.towers.get(tower, (None,))[0] != version:
            digest = hashlib.sha256()
            for parameter in tower.parameters():
                digest.update(_bytes(parameter))
            self.towers[tower] = version, digest.hexdigest()
        return self.towers[tower][1]

    def _run(self, model, pixels: torch.Tensor, grid: torch.Tensor) -> list[torch.Tensor]:
        found, sizes = [], grid.prod(-1).tolist()
        for places in pieces(len(grid), max(sizes), pixels.device):
            before, here = sum(sizes[: places.start]), sum(sizes[places])
            patches = pixels[before : before + here]
            found += by_picture(model.model.get_image_features(patches, grid[places], return_dict=True))
        return found


def pieces(rows: int, width: int, device: torch.device) -> list[slice]:
    """Slices of rows so that each has at most `PIECE` tokens or patches, if `width` are in a row; elsewhere than on a
    CPU one slice."""
    size = max(1, PIECE // max(1, width)) if device.type == "cpu" else max(1, rows)
    return [slice(start, start + size) for start in range(0, rows, size)]


def _digest(picture: torch.Tensor, shape: torch.Tensor, setting: str) -> bytes:
    digest = hashlib.sha256(f"{shape.tolist()} {setting}".encode())
    digest.update(_bytes(picture))
    return digest.digest()


def _bytes(tensor: torch.Tensor):
    return tensor.detach().contiguous().cpu().view(torch.uint8).numpy()


def _select(pictures, grid: torch.Tensor, fresh: dict[bytes, int]) -> tuple[torch.Tensor, torch.Tensor]:
    places = list(fresh.values())
    return torch.cat([pictures[place] for place in places]), grid[places]


def by_picture(output: BaseModelOutputWithPooling) -> list[torch.Tensor]:
    """The features [1 + D, tokens, width] of each picture in what a model's `get_image_features` returns."""
    levels = [output.pooler_output, *getattr(output, "deepstack_features", ())]
    return [torch.stack(picture) for picture in zip(*levels, strict=True)]


def as_features(features: list[torch.Tensor]) -> dict:
    """What stands for `pixel_values` in a model's keywords: the features [1 + D, tokens, width] of each picture."""
    first, *deeper = zip(*features, strict=True)
    output = BaseModelOutputWithDeepstackFeatures(pooler_output=first, deepstack_features=deeper)
    return {"mm_encoder_outputs": {"image": output}}


FEATURES = VisionFeatures()  # of this process, whatever model


def with_features(model, batch: dict, kept: VisionFeatures = FEATURES) -> dict:
    """A processor's batch with the pictures' features in place of their pixels."""
    if "pixel_values" not in batch:
        return dict(batch)
    rest = {name: value for name, value in batch.items() if name != "pixel_values"}
    return rest | kept(unwrapped(model), batch["pixel_values"], batch["image_grid_thw"])


def unwrapped(model):
    """The model inside a PEFT wrapper, if there is one."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
